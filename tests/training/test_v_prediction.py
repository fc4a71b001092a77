"""Models that predict v, with and without zero terminal SNR, train under every noising and objective."""

import json
import shutil
from pathlib import Path

import pytest

from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.trainer import train
from tests.training.outcomes import metrics_of
from tests.training.runs import make_run
from tests.training.test_step import OBJECTIVE_SETTINGS
from tests.training.test_waiting import NOISINGS_HERE

TOP = {"min_timestep": 999, "max_timestep": 999}
"""Every example at the last level, where alpha = 0 under zero terminal SNR."""


@pytest.fixture(scope="module", params=[False, True], ids=["v", "zero terminal SNR"])
def v_model(request: pytest.FixtureRequest, random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`random_sd`, said to predict v, as SD2.1's and NoobAI-XL's folders say it."""
    folder = tmp_path_factory.mktemp("v") / "model"
    shutil.copytree(random_sd, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    config |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": request.param,
               "_class_name": "DDIMScheduler"}
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "skip_prk_steps"}))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "DDIMScheduler"]}))
    return folder


@pytest.mark.parametrize("noising", NOISINGS_HERE)
def test_training_is_finite_at_the_last_level(
    sd_artefacts: Path, v_model: Path, noising: str, tmp_path: Path
) -> None:
    top = {} if noising == "chained" else TOP
    run = make_run(sd_artefacts, tmp_path / "run", v_model, noising=NOISINGS_HERE[noising], steps=1, **top)
    train(run)  # which refuses what is not finite
    assert metrics_of(run)[0]["grad_norm"] > 0


@pytest.mark.parametrize("objective", OBJECTIVE_SETTINGS)
def test_every_objective_regresses_v(sd_artefacts: Path, v_model: Path, objective: str, tmp_path: Path) -> None:
    """Finite, and something is learnt: at the last level the target is minus the image."""
    settings = OBJECTIVE_SETTINGS[objective]
    run = make_run(
        sd_artefacts, tmp_path / "run", v_model, objective=settings, noising={"name": "forward"}, steps=1, **TOP,
    )
    train(run)
    assert 0 < abs(metrics_of(run)[0]["loss"]) < 100  # Linear-DPO's may be negative


def test_cached_inversions_hold_at_the_last_level(sd_artefacts: Path, v_model: Path, tmp_path: Path) -> None:
    run = make_run(
        sd_artefacts, tmp_path / "run", v_model, noising=NOISINGS_HERE["by the reference"], steps=1,
        cached_inversion_epochs=1, **TOP,
    )
    cache_inversions(run, tmp_path / "cache")
    cached = with_cached_inversions(run, tmp_path / "cache")
    train(cached)
    assert metrics_of(cached)[0]["error_delta_w"] == pytest.approx(0, abs=1e-6)
