"""Settings that must not change where training goes, and networks that must not move."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from smpo.training import trainer
from smpo.training.checkpoint import load_checkpoint
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.outcomes import metrics_of, outcome

MakeRun = Callable[..., Run]
GENTLE = {  # differences of 1e-7 in a gradient stay differences of 1e-7 in the weights
    "objective": {"name": "smpo", "beta": 20.0, "gamma": 1.0}, "optimizer": {"lr": 1e-3, "eps": 1e-2}, "steps": 3,
}


def weights(run: Run) -> dict[str, Tensor]:
    return load_checkpoint(run.checkpoints).tensors["policy"]


def assert_same_trajectory(run: Run, other: Run, *, but: tuple[str, ...] = (), atol: float = 1e-6) -> None:
    """Equal weights and, `but` these, metrics."""
    for ours, theirs in zip(metrics_of(run), metrics_of(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        compared = {key: value for key, value in theirs.items() if key not in but}
        assert {key: ours[key] for key in ours if key not in but} == pytest.approx(compared, abs=1e-5, rel=1e-4)
    torch.testing.assert_close(weights(run), weights(other), atol=atol, rtol=1e-5)


def test_accumulation_is_the_large_batch(new_run: MakeRun) -> None:
    """4 x 1 = 2 x 2 = 1 x 4 pairs; weights differ from pair to pair, and pairs count alike (METHODS D45, 18.2.6)."""
    runs = [new_run(f"micro-{size}", micro_batch_size=size, **GENTLE) for size in (1, 2, 4)]
    for run in runs:
        run.pairs.p_winner = torch.linspace(0.05, 0.95, len(run.pairs))
        train(run)
    assert_same_trajectory(runs[0], runs[1])
    assert_same_trajectory(runs[2], runs[1])


KTO = {  # g is of the order of 0.01 here: beta g about 1/5
    **GENTLE, "objective": {"name": "kto", "beta": 20.0, "winner_share": 0.5}, "steps": 3,
    "noising": {"name": "forward", "noise": "independent"},
}


def test_the_reference_point_of_an_accumulated_step_is_that_of_the_large_batch(new_run: MakeRun) -> None:
    """4 x 1 = 2 x 2 = 1 x 4 images: loss, gradient and k; only the passes ahead cost one evaluation more."""
    runs = [new_run(f"micro-{size}", micro_batch_size=size, **KTO) for size in (1, 2, 4)]
    for run in runs:
        train(run)
    assert_same_trajectory(runs[0], runs[2], but=("nfe_no_grad",))
    assert_same_trajectory(runs[1], runs[2], but=("nfe_no_grad",))
    points = [line["reference_point"] for line in metrics_of(runs[2])]
    assert min(points) >= 0 and max(points) > 1e-5  # a point that is always zero would prove nothing
    assert len({line["desirable_share"] for line in metrics_of(runs[2])}) > 1
    assert [metrics_of(run)[0]["nfe_no_grad"] for run in runs] == [2, 2, 1]


def test_gradient_checkpointing_changes_nothing(new_run: MakeRun) -> None:
    plain, checkpointed = (new_run(f"run-{on}", gradient_checkpointing=on, **GENTLE) for on in (False, True))
    train(plain)
    train(checkpointed)
    assert_same_trajectory(checkpointed, plain)


def test_loader_processes_change_no_bit(new_run: MakeRun) -> None:
    none, two = new_run("none", workers=0, steps=3), new_run("two", workers=2, steps=3)
    train(none)
    train(two)
    assert outcome(two) == outcome(none)


def test_another_seed_is_another_trajectory(new_run: MakeRun) -> None:
    zero, one = new_run("zero", steps=2), new_run("one", seed=1, steps=2)
    train(zero)
    train(one)
    assert metrics_of(zero)[1] != metrics_of(one)[1]


def hash_of(module: nn.Module) -> tuple:
    return tuple(float(tensor.double().sum()) for tensor in module.state_dict().values())


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, tuple]]:
    """Every reference network that a trainer loads, with its hash at that time."""
    seen: list[tuple[nn.Module, tuple]] = []
    load = trainer.Trainer._reference

    def noting(self: Any, *given: Any) -> nn.Module | None:
        reference = load(self, *given)
        if reference is not None:
            seen.append((reference, hash_of(reference)))
        return reference

    monkeypatch.setattr(trainer.Trainer, "_reference", noting)
    return seen


def stored(source: str, **place: str) -> tuple:
    return hash_of(UNet2DConditionModel.from_pretrained(source, **place))


def test_the_reference_stays_what_it_was_through_training_and_resume(
    new_run: MakeRun, references: list[tuple[nn.Module, tuple]]
) -> None:
    for steps in (2, 4):
        train(new_run("run", steps=steps))
    base = stored(new_run("run").family.source, subfolder="unet")
    assert [(before, hash_of(reference)) for reference, before in references] == [(base, base)] * 2
    assert hash_of(load_unet_of(new_run("run"))) != base


def load_unet_of(run: Run) -> nn.Module:
    return run.family.load_denoiser(str(run.model_folder))


def test_the_reference_follows_the_policy_where_it_is_told_to(
    new_run: MakeRun, references: list[tuple[nn.Module, tuple]]
) -> None:
    """reference <- 0.75 reference + 0.25 policy after each of two steps, by hand from the checkpoints."""
    run = new_run("run", steps=2, reference_ema_decay=0.75)
    train(run)
    expected = run.family.load_denoiser().state_dict()
    for step in (1, 2):
        saved = {stem: load_file(run.checkpoints / f"step-0000000{step}" / f"{stem}.safetensors")
                 for stem in ("policy", "reference")}
        for name in expected:
            expected[name] = 0.75 * expected[name] + 0.25 * saved["policy"][name]
            torch.testing.assert_close(saved["reference"][name], expected[name])
    (reference, _), = references
    assert all(torch.equal(tensor, saved["reference"][name]) for name, tensor in reference.state_dict().items())
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_policy_and_reference_start_where_they_are_told_to(
    new_run: MakeRun, references: list[tuple[nn.Module, tuple]], other_unet: str
) -> None:
    """init_weights alone moves both; reference_weights moves the reference alone."""
    still = {"steps": 1, "optimizer": {"lr": 1e-30, "weight_decay": 0.0}}
    base, other = stored(new_run("run").family.source, subfolder="unet"), stored(other_unet)
    for name, given, policy, reference in (
        ("neither", {}, base, base),
        ("init", {"init_weights": other_unet}, other, other),
        ("ref", {"reference_weights": other_unet}, base, other),
    ):
        run = new_run(name, **still, **given)
        train(run)
        assert hash_of(load_unet_of(run)) == pytest.approx(policy, abs=1e-20, rel=0)
        assert references[-1][1] == reference


def test_no_reference_is_loaded_that_nobody_needs(
    new_run: MakeRun, references: list[tuple[nn.Module, tuple]]
) -> None:
    train(new_run("run", steps=1, objective={"name": "sft"}))
    assert references == []


def test_the_average_follows_the_weights(new_run: MakeRun) -> None:
    """diffusers' ramp (1 + k) / (10 + k), k = 0, 1, ..., is 0 at first, by definition, then 2 / 11 < 0.9."""
    run = new_run("run", steps=2, ema_decay=0.9)
    train(run)
    first, second = (load_file(run.checkpoints / f"step-0000000{step}" / "policy.safetensors") for step in (1, 2))
    state = load_checkpoint(run.checkpoints)
    result = load_unet_of(run).state_dict()
    names = [name for name, _ in run.family.load_denoiser().named_parameters()]
    for index, name in enumerate(names):
        average = state.tensors["ema"][str(index)]
        torch.testing.assert_close(average, first[name] * 2 / 11 + second[name] * 9 / 11)
        assert torch.equal(result[name], average)
