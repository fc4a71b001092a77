"""Implicit accuracy on held-out pairs: an untrained policy knows nothing, and the margins are the trainer's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smpo.core.errors import StaleError
from smpo.core.randomness import derive_seed
from smpo.evaluation.implicit_accuracy import implicit_accuracy
from smpo.evaluation.statistics import share_interval
from smpo.maths.preference import implicit_margin
from smpo.training.implicit import HeldOut, held_out_margins, measure_held_out, read_held_out
from smpo.training.learners.learner import Networks
from smpo.training.options import ImplicitOptions
from smpo.training.preference_run import PreferenceRun as Run
from smpo.training.sources.order import Example, ExampleOrder
from tests.tiny_pipelines import save_random_sd
from tests.training.runs import make_run
from tests.training.steps import Setup, micro_batches, stepped

OPTIONS = ImplicitOptions(timesteps=(100, 800), batch_size=4)


@pytest.fixture(scope="module")
def run(sd_artefacts: Path, random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(sd_artefacts, tmp_path_factory.mktemp("run"), random_sd, noising={"name": "forward"})


@pytest.fixture(scope="module")
def held(run: Run) -> HeldOut:
    return HeldOut(run.pairs, run.cache, run.family, {"cache": run.cache.fingerprint})


@pytest.fixture(scope="module")
def other_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_sd(tmp_path_factory.mktemp("other") / "sd", seed=1)


def test_the_reference_itself_has_no_preference(held: HeldOut) -> None:
    unet = held.family.load_denoiser()
    margins = held_out_margins(held, (unet, unet), options=OPTIONS)
    assert margins.shape == (2, 10) and not margins.any()
    found = implicit_accuracy("same", margins.numpy(), OPTIONS.timesteps, held.pairs.prompt_rows)
    assert found.accuracy.value == 0.5 and found.pairs == 10 and found.mean_margin == 0


def test_margins_are_those_of_a_training_step(held: HeldOut, run: Run, other_sd: Path) -> None:
    """The same batch through the learner gives the same errors; batch size, order and sides change nothing."""
    policy, reference = held.family.load_denoiser(str(other_sd)), held.family.load_denoiser()
    calls: list[tuple[int, int]] = []
    margins = held_out_margins(held, (policy, reference), options=OPTIONS, progress=lambda *c: calls.append(c))
    assert calls[-1] == (6, 6) and margins.abs().min() > 0
    plain = {"min_timestep": 800, "max_timestep": 800, "caption_dropout": 0.0, "flips": "none", "latents": "mean"}
    batches = micro_batches(run, order=ExampleOrder(0), **plain)
    batch = batches.collate([Example(row, derive_seed(0, "held-out", 800, row)) for row in range(10)])
    setup = Setup(run.learner, Networks(policy, policy, reference, torch.no_grad))
    expected = implicit_margin(stepped(batch, setup).errors)
    torch.testing.assert_close(margins[1], expected, rtol=0, atol=1e-5)
    swapped = held_out_margins(held, (reference, policy), options=OPTIONS)
    torch.testing.assert_close(swapped, -margins, rtol=0, atol=1e-6)
    one = held_out_margins(held, (policy, reference), options=OPTIONS.model_copy(update={"batch_size": 1}))
    torch.testing.assert_close(one, margins, rtol=0, atol=1e-5)
    again = held_out_margins(held, (policy, reference), options=OPTIONS.model_copy(update={"seed": 1}))
    assert not torch.equal(again, margins)


def test_accuracy_by_hand() -> None:
    """Means over the timesteps: 1, 0, -2, 3 of prompts a, a, b, b: (1 + 1/2 + 0 + 1) / 4."""
    margins = np.array([[2.0, 1, -1, 4], [0, -1, -3, 2]])
    found = implicit_accuracy("m", margins, (100, 800), [0, 0, 1, 1])
    assert found.accuracy == share_interval([1, 0.5, 0, 1], [0, 0, 1, 1]) and found.accuracy.value == 0.625
    assert [(t, i.value) for t, i in found.by_timestep] == [(100, 0.75), (800, 0.375)]
    assert found.mean_margin == 0.5


def test_margins_are_stored_and_bound_to_their_model(held: HeldOut, other_sd: Path, random_sd: Path, tmp_path) -> None:
    measure_held_out(held, tmp_path / "a", policy=str(other_sd), reference=None, options=OPTIONS)
    margins, timesteps, prompts = read_held_out(tmp_path / "a")
    denoisers = held.family.load_denoiser(str(other_sd)), held.family.load_denoiser()
    expected = held_out_margins(held, denoisers, options=OPTIONS)
    np.testing.assert_array_equal(margins, expected.numpy())
    assert timesteps.tolist() == [100, 800] and prompts.tolist() == held.pairs.prompt_rows
    measure_held_out(
        held, tmp_path / "a", policy=str(other_sd), reference=None,
        options=OPTIONS.model_copy(update={"batch_size": 3}), progress=lambda *_: pytest.fail("computed again"),
    )
    with pytest.raises(StaleError, match="policy="):
        measure_held_out(held, tmp_path / "a", policy=str(random_sd), reference=None, options=OPTIONS)
