"""Runs over the artefacts of conftest, with every setting small."""

from pathlib import Path
from typing import Any

from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.preparation.cache import LatentCache
from smpo.preparation.label import LabelTable
from smpo.training.options import TrainingOptions
from smpo.training.preference_run import PreferenceRun
from smpo.training.sources.pairs import TrainingPairs


def make_run(
    artefacts: Path, folder: Path, model: Path, *, family: str = "sd", objective: dict | None = None,
    noising: dict | None = None, seed: int = 0, init_weights: str | None = None, reference_weights: str | None = None,
    **training: Any,
) -> PreferenceRun:
    """A run of two micro-batches of two pairs a step unless told otherwise."""
    objective = objective or {"name": "smpo", "beta": 2000.0, "gamma": 1.0}
    noising = noising or {"name": "renoise", "inversion_steps": 3, "grid": "subdivide"}
    options = {
        "steps": 4, "batch_size": 4, "micro_batch_size": 2, "optimizer": {"lr": 1e-3}, "trackers": (),
        "checkpoint_every": 1, **training,
    }
    cache = LatentCache(artefacts / "cache")
    pairs = TrainingPairs(PairSet.open(artefacts / "pairs"), LabelTable.open(artefacts / "label"), cache)
    return PreferenceRun(
        name="test", folder=folder, seed=seed, family=FAMILIES.build({"name": family, "source": str(model)}),
        init_weights=init_weights, reference_weights=reference_weights, noising=NOISINGS.build(noising),
        objective=OBJECTIVES.build(objective), options=TrainingOptions(**options), pairs=pairs, cache=cache,
        inputs={"cache": cache.fingerprint}, settings={"objective": objective, "noising": noising},
        recipe_yaml="name: test\n",
    )
