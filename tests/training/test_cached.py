"""Cached inversions: training from the cache is training with a reference that inverts; it is made once, safely."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smpo.core.artefacts import JOURNALS, read_manifest
from smpo.core.errors import DataError, NonFiniteError, StaleError
from smpo.core.processes import Process
from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.models.sd import StableDiffusion
from smpo.preparation.cache import LatentCache, cache_pairs
from smpo.preparation.options import CacheOptions
from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.run import Run
from smpo.training.sources import cached
from smpo.training.sources.pairs import MicroBatches
from smpo.training.trainer import forget_precision, train
from tests.tiny_pipelines import save_random_sd
from tests.training.faults import PowerCut
from tests.training.outcomes import die, exit_code, metrics_of, outcome
from tests.training.parallel.processes import on_processes
from tests.training.runs import make_run
from tests.training.test_non_finite import DamagedCache, row_at
from tests.training.test_trajectories import GENTLE, KTO, assert_same_trajectory

MakeRun = Callable[..., Run]
RENOISE = {"name": "renoise", "inversion_steps": 3, "grid": "subdivide", "network": "reference"}
LN2 = math.log(2)


@pytest.fixture
def stored_run(new_run: MakeRun, tmp_path: Path) -> MakeRun:
    """Makes runs of these names whose examples are stored in the folder `store`."""

    def make(name: str, *, store: str = "store", **changes: Any) -> Run:
        run = new_run(name, **{"noising": RENOISE, "cached_inversion_epochs": 1, **changes})
        cache_inversions(run, tmp_path / store)
        return with_cached_inversions(run, tmp_path / store)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the manifest and what a killed `finish` leaves behind it, which nobody reads any more."""
    files = [path for path in sorted(folder.iterdir()) if not path.match(JOURNALS) and path.name != "manifest.json"]
    return {path.name: path.read_bytes() for path in files}


def without_free(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome but for the evaluations that the store saves."""
    lines = [{k: v for k, v in line.items() if k != "nfe_no_grad"} for line in outcome["metrics"]]
    return {**outcome, "metrics": lines}


# --- training from the store ---

SAME = {
    "smpo": {},
    "released, level reached": {"noising": {"name": "released", "inversion_steps": 3, "network": "reference",
                                            "timestep": "reached", "jitter": 0.1}},
    "chained": {"noising": {"name": "chained", "chain_length": 2, "network": "reference"}, "micro_batch_size": 2},
    "kto": {"objective": KTO["objective"], "micro_batch_size": 4},
    "lora": {"lora": {"rank": 2}},
}
FAST = ("smpo",)


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in SAME])
def test_training_from_the_store_is_training_without_it_bit_for_bit(
    new_run: MakeRun, stored_run: MakeRun, case: str
) -> None:
    """In 1.6 epochs of ten pairs with two rounds of draws no example comes again; the first step's margins are zero.

    A micro-batch holds one pair or chain: of several, the store's are put together otherwise, and round otherwise.
    """
    changes = {"noising": RENOISE, "cached_inversion_epochs": 2, "steps": 4, "micro_batch_size": 1, **SAME[case]}
    plain, ours = new_run("plain", **changes), stored_run("ours", **changes)
    train(plain)
    train(ours)
    assert without_free(outcome(ours)) == without_free(outcome(plain))
    first = metrics_of(ours)[0]
    assert {line["nfe_no_grad"] for line in metrics_of(ours)} == {0.0} and len(ours.cached) == 16
    assert min(line["nfe_no_grad"] for line in metrics_of(plain)) > 1
    assert first["logit_std"] == first["logit_mean"] == 0.0 and metrics_of(ours)[1]["logit_std"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("noising", [RENOISE, {"name": "forward"}])
def test_visits_that_come_again_are_read_again(new_run: MakeRun, stored_run: MakeRun, noising: dict) -> None:
    """2.8 epochs of one round, other micro-batches in each; forward noise is taken from the latents, not as drawn."""
    changes = {**GENTLE, "noising": noising, "cached_inversion_epochs": 1, "steps": 7}
    plain, ours = new_run("plain", **changes), stored_run("ours", **changes)
    train(plain)
    train(ours)
    assert_same_trajectory(ours, plain, but=("nfe_no_grad",))
    assert len(ours.cached) == 10
    seen = [line["error_w"] + line["error_l"] for line in metrics_of(ours)]
    assert len(set(seen)) == 7


@pytest.fixture
def half_artefacts(sd_artefacts: Path, random_sd: Path, tmp_path: Path) -> Path:
    """The artefacts with a float16 cache."""
    root = tmp_path / "half"
    shutil.copytree(sd_artefacts, root, ignore=shutil.ignore_patterns("cache", "source"))
    family = FAMILIES.build({"name": "sd", "source": str(random_sd)})
    half = CacheOptions(resolution=32, dtype="float16")
    cache_pairs(PairSet.open(root / "pairs"), family, root / "cache", options=half)
    return root


def test_rounded_latents_leave_zero_margins_and_nearly_the_same_training(
    half_artefacts: Path, random_sd: Path, tmp_path: Path
) -> None:
    """float16 keeps 11 bits: errors of about 0.02 differ by less than 1e-4; at the start the margins are still zero."""
    changes = {**GENTLE, "noising": RENOISE, "cached_inversion_epochs": 1, "batch_size": 4, "micro_batch_size": 2}
    plain, ours = (make_run(half_artefacts, tmp_path / name, random_sd, **changes) for name in ("plain", "ours"))
    cache_inversions(ours, tmp_path / "store")
    ours = with_cached_inversions(ours, tmp_path / "store")
    train(plain)
    train(ours)
    assert np.load(tmp_path / "store" / "x_t-00000.npy").dtype == np.float16
    first, second = metrics_of(ours)[:2]
    assert first["loss"] == pytest.approx(LN2, abs=1e-7) and first["logit_std"] == first["error_delta_w"] == 0.0
    assert second["logit_std"] > 0
    for line, unrounded in zip(metrics_of(ours), metrics_of(plain), strict=True):
        assert 0 < abs(line["error_w"] - unrounded["error_w"]) < 1e-4


@pytest.mark.slow
def test_stage_and_training_compute_in_the_same_precision(stored_run: MakeRun) -> None:
    """bf16 has 8 bits: errors taken in float32 would differ from the policy's."""
    forget_precision()
    run = stored_run("run", mixed_precision="bf16", steps=2)
    train(run)
    forget_precision()
    first, second = metrics_of(run)
    assert first["logit_std"] == first["error_delta_w"] == first["error_delta_l"] == 0.0 and second["logit_std"] > 0


def test_no_reference_is_loaded(stored_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, loaded = stored_run("run", steps=1), []
    load = StableDiffusion.load_denoiser
    monkeypatch.setattr(StableDiffusion, "load_denoiser", lambda *given: loaded.append(given[1:]) or load(*given))
    train(run)
    assert loaded == [(None,)]


def test_two_processes_read_what_one_does(stored_run: MakeRun) -> None:
    run = stored_run("run")

    whole = [MicroBatches(run.source, Process())[number].cached for number in range(2)]
    for name, dim in (("x_t", 1), ("timesteps", 0), ("reference", 1)):
        theirs = [getattr(MicroBatches(run.source, Process(rank, 2))[0].cached, name) for rank in (0, 1)]
        dealt = torch.stack(theirs, dim=dim + 1).flatten(dim, dim + 1)  # in turns
        assert torch.equal(dealt, torch.cat([getattr(one, name) for one in whole], dim=dim))
    assert whole[0].x_t.shape == (2, 2, 4, 8, 8) and whole[0].reference.shape == (2, 2)
    assert not torch.equal(whole[0].timesteps, whole[1].timesteps)


# --- making the store ---

@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_killed_at_any_write_carries_on_to_the_same_bytes(
    new_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Blocks of four, four and two examples; a power cut in one of `every` so many calls that change the disk."""
    monkeypatch.setattr(cached, "BLOCK_CHAINS", 4)
    run = new_run("run", noising=RENOISE, cached_inversion_epochs=1)
    cache_inversions(run, tmp_path / "straight")
    straight = contents(tmp_path / "straight")
    assert len(straight) == 9 and len(with_cached_inversions(run, tmp_path / "straight").cached) == 10
    code, at = -9, 0
    while code == -9:

        def cut(at: int = at) -> None:
            PowerCut(at).armed = True
            cache_inversions(run, tmp_path / "cut")

        code, at = exit_code(cut), at + every
        if code == -9:
            if contents(tmp_path / "cut") != straight:
                with pytest.raises(DataError, match="run `smpo invert`"):
                    with_cached_inversions(run, tmp_path / "cut")
            assert cache_inversions(run, tmp_path / "cut").examples == 10
        assert contents(tmp_path / "cut") == straight
        shutil.rmtree(tmp_path / "cut")
    assert code == 0 and at > 20


def test_finished_blocks_are_not_made_again_and_a_longer_training_makes_the_rest(
    new_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten examples of a round two steps see eight: blocks of 3, 3 and 2; the last is made again, as 3 and 1."""
    monkeypatch.setattr(cached, "BLOCK_CHAINS", 3)
    out, settings = tmp_path / "store", {"noising": RENOISE, "cached_inversion_epochs": 1}
    short, long, longer = (new_run("run", steps=steps, **settings) for steps in (2, 3, 30))
    made: list[tuple[int, int]] = []
    assert cache_inversions(short, out, progress=lambda *done: made.append(done)).examples == 8
    assert made == [(3, 8), (6, 8), (8, 8)]
    before = {path: path.stat().st_mtime_ns for number in (0, 1) for path in out.glob(f"*-0000{number}.npy")}
    with pytest.raises(StaleError, match="holds 8 examples, training makes 10; run `smpo invert` again"):
        with_cached_inversions(long, out)
    assert cache_inversions(long, out, progress=lambda *done: made.append(done)).evaluations == pytest.approx(10)
    assert made[3:] == [(9, 10), (10, 10)] and len(before) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
    begun, grown = with_cached_inversions(short, out), with_cached_inversions(longer, out)
    assert begun.inputs == grown.inputs and "invert" in begun.inputs
    assert cache_inversions(longer, out).evaluations is None and cache_inversions(short, out).examples == 10


@pytest.mark.slow
def test_two_processes_make_what_one_makes(
    new_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of them was killed in its second block; and they train from it what one process trains."""
    monkeypatch.setattr(cached, "BLOCK_CHAINS", 2)
    settings = {**GENTLE, "noising": RENOISE, "cached_inversion_epochs": 1}
    run = new_run("one", **settings)
    cache_inversions(run, tmp_path / "one-store")

    def killed(done: int, total: int) -> None:
        if done == 4:
            die()

    assert -9 in on_processes(lambda: cache_inversions(run, tmp_path / "two-store", progress=killed))
    assert on_processes(lambda: cache_inversions(run, tmp_path / "two-store")) == [0, 0]
    assert contents(tmp_path / "two-store") == contents(tmp_path / "one-store")
    train(with_cached_inversions(run, tmp_path / "one-store"))
    two = with_cached_inversions(new_run("two", **{**settings, "micro_batch_size": 1}), tmp_path / "two-store")
    assert on_processes(lambda: train(two)) == [0, 0]
    assert_same_trajectory(two, run)


# --- what is refused ---

OTHERS = {
    "seed": {"seed": 1},
    "training.caption_dropout": {"caption_dropout": 0.5},
    "training.max_timestep": {"max_timestep": 500},
    "training.cached_inversion_epochs": {"cached_inversion_epochs": 2},
    "training.latents": {"latents": "mean"},
    "noising.inversion_steps": {"noising": {**RENOISE, "inversion_steps": 2}},
    "winner_share": {"objective": KTO["objective"]},
}


def test_a_store_of_other_settings_inputs_or_weights_is_refused_by_name(
    stored_run: MakeRun, new_run: MakeRun, other_unet: str, tmp_path: Path
) -> None:
    run, out = stored_run("run", steps=1), tmp_path / "store"
    plain = {"noising": RENOISE, "cached_inversion_epochs": 1, "steps": 1}
    for key, changes in OTHERS.items():
        with pytest.raises(StaleError, match=f"{key}="):
            with_cached_inversions(new_run("run", **{**plain, **changes}), out)
    with pytest.raises(StaleError, match=r"input\.label="):
        other = new_run("run", **plain)
        with_cached_inversions(replace(other, inputs={**other.inputs, "label": "new"}), out)
    with pytest.raises(StaleError, match=r"input\.model\.reference="):
        cache_inversions(new_run("run", reference_weights=other_unet, **plain), out)
    with pytest.raises(DataError, match="holds no invert artefact; run `smpo invert` first"):
        with_cached_inversions(new_run("run", **plain), tmp_path / "nowhere")
    same = {"objective": {"name": "dpo", "beta": 1.0}, "optimizer": {"lr": 1.0}, "lora": {"rank": 1}}
    assert len(with_cached_inversions(new_run("run", **{**plain, **same}), out).cached) == len(run.cached)


def test_a_policy_that_starts_elsewhere_than_its_stored_reference_is_refused(
    sd_artefacts: Path, tmp_path: Path
) -> None:
    """The weights under the model's name have changed since."""
    model = save_random_sd(tmp_path / "model")
    settings = {"noising": RENOISE, "cached_inversion_epochs": 1, "steps": 1, "batch_size": 2}
    run = make_run(sd_artefacts, tmp_path / "run", model, **settings)
    cache_inversions(run, tmp_path / "store")
    shutil.rmtree(model / "unet")
    shutil.copytree(save_random_sd(tmp_path / "other", seed=1) / "unet", model / "unet")
    with pytest.raises(StaleError, match=r"store was made with input\.model\.reference="):
        train(with_cached_inversions(run, tmp_path / "store"))


def test_runs_without_a_store_stay_what_they_were(new_run: MakeRun) -> None:
    run = new_run("run", steps=1)
    train(run)
    manifest = read_manifest(run.folder, stage="train")
    assert "cached_inversion_epochs" not in manifest["settings"]["training"] and set(manifest["inputs"]) == {
        "cache", "model.unet", "model.reference", "model.scheduler"
    }


def test_latents_that_are_not_finite_or_do_not_fit_are_refused(
    half_artefacts: Path, random_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(half_artefacts, tmp_path / "run", random_sd, noising=RENOISE, cached_inversion_epochs=1)
    row = row_at(run, 1)
    bad = replace(run, cache=DamagedCache(run.cache.folder, run.pairs.cache_rows[row]))
    with pytest.raises(NonFiniteError, match=f"of pairs {run.pairs.pair_ids[row]} are not finite"):
        cache_inversions(bad, tmp_path / "store")
    moments = LatentCache.moments
    monkeypatch.setattr(LatentCache, "moments", lambda *place: tuple(1e6 * value for value in moments(*place)))
    with pytest.raises(DataError, match="x_t-00000 has values beyond float16; set cache.dtype=float32"):
        cache_inversions(run, tmp_path / "store")
