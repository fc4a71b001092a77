"""One micro-batch: independent of its company, the identity at step 0, modes and conditioning as they should be."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smpo.core.records import Conditioning
from smpo.maths.path import GaussianPath
from smpo.models.sd import StableDiffusion
from smpo.training.learners.preference import NFE
from smpo.training.preference_run import PreferenceRun as Run
from tests.training.steps import batch_of, setup_of, stepped

MakeRun = Callable[..., Run]
OBJECTIVE_SETTINGS = {
    "smpo": {"name": "smpo", "beta": 20.0, "gamma": 1.0}, "dpo": {"name": "dpo", "beta": 20.0}, "sft": {"name": "sft"},
    "mapo": {"name": "mapo", "beta": 10.0, "temperature": 10.0}, "ipo": {"name": "ipo", "beta": 20.0},
    "cdpo": {"name": "cdpo", "beta": 20.0}, "linear": {"name": "linear", "beta": 20.0},
    "kto": {"name": "kto", "beta": 20.0},
}
NOISING_SETTINGS = {
    "forward": {"name": "forward"},
    "renoise": {"name": "renoise", "inversion_steps": 3, "grid": "subdivide"},
    "fixed stride": {"name": "renoise", "inversion_steps": 4, "grid": "fixed_stride"},
    "released": {"name": "released", "inversion_steps": 4},
    "guided": {"name": "ddim", "inversion_steps": 2, "inversion_cfg": 2.0},
}


def with_weights(run: Run) -> Run:
    """`run` with another weight for every pair."""
    run.pairs.p_winner = torch.linspace(0.05, 0.95, len(run.pairs))
    return run


@pytest.mark.parametrize(("objective", "noising"), [
    *itertools.product(("smpo", "dpo", "sft"), NOISING_SETTINGS),
    *((objective, "forward") for objective in ("mapo", "ipo", "cdpo", "linear")),
])
def test_the_losses_of_a_batch_are_those_of_its_pairs_alone(new_run: MakeRun, objective: str, noising: str) -> None:
    """Weights, timesteps and dropped captions differ from pair to pair; one taken from the first would show."""
    run = with_weights(
        new_run("run", objective=OBJECTIVE_SETTINGS[objective], noising=NOISING_SETTINGS[noising], caption_dropout=0.5)
    )
    setup = setup_of(run, moved=0.03)
    together = stepped(batch_of(run, range(5)), setup).loss
    alone = torch.cat([stepped(batch_of(run, range(i, i + 1)), setup).loss for i in range(5)])
    assert together.shape == (5,)
    assert len(set(together.tolist())) == 5
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("objective", ["smpo", "dpo", "cdpo", "linear"])
@pytest.mark.parametrize("noising", ["forward", "renoise", "released"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_at_step_0_the_loss_is_ln_2_for_every_pair(
    new_run: MakeRun, objective: str, noising: str, precision: str
) -> None:
    """Policy and reference are equal, in value and in arithmetic, autocast or not (METHODS 18.2.1, D37)."""
    settings = {**OBJECTIVE_SETTINGS[objective], "beta": 5000.0}
    run = with_weights(new_run("run", objective=settings, noising=NOISING_SETTINGS[noising]))
    bfloat16 = precision == "bfloat16"
    setup = setup_of(run, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16))
    output = stepped(batch_of(run, range(4)), setup)
    errors = output.errors
    assert (errors.policy_w - errors.reference_w).abs().max() < 1e-6
    assert (errors.policy_l - errors.reference_l).abs().max() < 1e-6
    assert output.logit.abs().max() < 1e-4
    if objective != "linear":  # whose loss is p - 1/2 times the policy's own difference of errors
        assert output.loss.tolist() == pytest.approx([math.log(2)] * 4, abs=1e-4)


def test_smpo_of_certain_labels_is_dpo(new_run: MakeRun) -> None:
    """p_winner = 1 and gamma = 1: weight 2 alpha - gamma = 1 (METHODS 18.2.4)."""
    smpo = new_run("smpo", objective=OBJECTIVE_SETTINGS["smpo"])
    dpo = new_run("dpo", objective=OBJECTIVE_SETTINGS["dpo"])
    ours, theirs = (stepped(batch_of(run, range(4)), setup_of(run, moved=0.03)).loss for run in (smpo, dpo))
    assert torch.equal(ours, theirs)


def test_pairs_of_weight_zero_give_no_gradient(new_run: MakeRun) -> None:
    run = new_run("run", objective=OBJECTIVE_SETTINGS["smpo"])
    run.pairs.p_winner = torch.full((len(run.pairs),), 0.5)
    setup = setup_of(run, moved=0.03)
    stepped(batch_of(run, range(3)), setup).loss.mean().backward()
    assert all(not parameter.grad.any() for parameter in setup.networks.policy.parameters())


@pytest.mark.parametrize("objective", ["smpo", "dpo", "mapo", "ipo", "cdpo", "linear", "kto"])
def test_a_gradient_step_raises_the_margin(new_run: MakeRun, objective: str) -> None:
    """Down the loss the winner's error falls against the loser's (METHODS 18.2.2)."""
    run = new_run("run", objective=OBJECTIVE_SETTINGS[objective])
    setup, batch = setup_of(run), batch_of(run, range(4))
    before = stepped(batch, setup)
    before.loss.mean().backward()
    with torch.no_grad():
        for parameter in setup.networks.policy.parameters():
            parameter -= 1e-3 * parameter.grad
    assert stepped(batch, setup).logit.mean() > before.logit.mean()


@dataclass
class Spy:
    """A model family that notes who was asked for noise, in which mode, with gradient or not, given what."""

    family: StableDiffusion
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> GaussianPath:
        return self.family.path

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        self.calls.append({"denoiser": denoiser, "training": denoiser.training, "gradient": torch.is_grad_enabled(),
                           "hidden": given.tensors["hidden"]})
        return self.family.predict(denoiser, x_t, timesteps, given)


def test_inversion_policy_and_reference_share_captions_and_dropped_ones(new_run: MakeRun) -> None:
    run = new_run("run", noising=NOISING_SETTINGS["renoise"], caption_dropout=0.5)
    batch, spy = batch_of(run, range(8)), Spy(run.family)
    empty = run.cache.prompts([0])["hidden"][0]
    dropped = [torch.equal(hidden, empty) for hidden in batch.conditioning.tensors["hidden"][:8]]
    assert 0 < sum(dropped) < 8
    stepped(batch, setup_of(run).with_family(spy))
    assert len(spy.calls) == 3 + 1 + 2  # three steps of inversion, one ReNoise, reference, policy
    for call in spy.calls:
        winners, losers = call["hidden"].chunk(2)
        assert torch.equal(winners, losers)
        assert [torch.equal(hidden, empty) for hidden in winners] == dropped


@pytest.mark.parametrize("network", ["policy", "reference"])
def test_modes_and_gradients(new_run: MakeRun, other_unet: str, network: str) -> None:
    """The inverting network in eval mode without gradient, the policy in train mode with, the reference without."""
    noising = {**NOISING_SETTINGS["renoise"], "network": network}
    run = new_run("run", noising=noising, init_weights=other_unet)
    spy = Spy(run.family)
    setup = setup_of(run).with_family(spy)
    inverter = {"policy": setup.networks.policy, "reference": setup.networks.reference}[network]
    for _ in range(2):
        spy.calls.clear()
        stepped(batch_of(run, range(2)), setup)
        *inversion, reference, policy = spy.calls
        assert all(call["denoiser"] is inverter and not call["training"] and not call["gradient"] for call in inversion)
        assert policy["denoiser"] is setup.networks.policy and policy["training"] and policy["gradient"]
        assert reference["denoiser"] is setup.networks.reference
        assert not reference["training"] and not reference["gradient"]


def test_inversion_does_not_feel_dropout(new_run: MakeRun, other_unet: str) -> None:
    """While the policy's own prediction does: the UNet has dropout 1/2."""
    run = new_run("run", noising=NOISING_SETTINGS["renoise"], init_weights=other_unet)
    setup, batch = setup_of(run), batch_of(run, range(2))
    first, first_loss = setup.learner.noised(batch, setup.networks, NFE()), stepped(batch, setup).loss
    second, second_loss = setup.learner.noised(batch, setup.networks, NFE()), stepped(batch, setup).loss
    assert torch.equal(first.x_t, second.x_t) and torch.equal(first.target, second.target)
    assert not torch.equal(first_loss, second_loss)
    assert not first.x_t.requires_grad and not first.target.requires_grad


@pytest.mark.parametrize(("objective", "noising", "trained", "free"), [
    ("dpo", {"name": "forward"}, 2, 2),
    ("smpo", {"name": "renoise", "inversion_steps": 4, "grid": "subdivide"}, 2, 2 + 10),
    ("smpo", {"name": "ddim", "inversion_steps": 4, "grid": "subdivide", "inversion_cfg": 2.0}, 2, 2 + 16),
    ("smpo", {"name": "released", "inversion_steps": 4}, 2, 2 + 20),
    ("mapo", {"name": "forward"}, 2, 0), ("sft", {"name": "forward"}, 1, 0), ("kto", {"name": "forward"}, 1, 1),
])
def test_evaluations_by_hand(new_run: MakeRun, objective: str, noising: dict, trained: int, free: int) -> None:
    """An example of t = 900, two images: subdivide takes 4 steps and ReNoise one more, an image each; CFG 2 doubles.

    The released grid goes 0, 1, 201, 401, 601, 801: five moves of two predictions for each of two images are 20.
    """
    run = new_run("run", objective={"name": objective}, noising=noising)
    output = stepped(batch_of(run, range(3), min_timestep=900, max_timestep=900), setup_of(run))
    assert (output.nfe.grad, output.nfe.no_grad) == (3 * trained, 3 * free)


def test_values_pooled_ahead_are_those_of_the_step_and_are_counted(new_run: MakeRun) -> None:
    run = new_run("run", objective={"name": "kto"}, noising={"name": "forward", "noise": "independent"})
    setup, batch = setup_of(run, moved=0.03), batch_of(run, range(4))
    prepared = setup.learner.prepare(batch, setup.networks)
    ahead = setup.learner.pooled(prepared, setup.networks)
    seen: list[Tensor] = []

    def pool(values: Tensor) -> Tensor:
        seen.append(values)
        return torch.tensor([0.125])

    output = stepped(batch, setup, pool)
    assert torch.equal(seen[0], ahead) and not ahead.requires_grad and not seen[0].requires_grad
    assert torch.equal(ahead, (output.errors.reference_w - output.errors.policy_w).detach())
    assert output.errors.pool.tolist() == [0.125]
    assert (prepared.nfe.grad, prepared.nfe.no_grad) == (0, 8) and output.nfe.grad == 4


def test_sft_sees_the_winners_alone(new_run: MakeRun) -> None:
    run = new_run("run", objective={"name": "sft"})
    spy = Spy(run.family)
    output = stepped(batch_of(run, range(4)), setup_of(run).with_family(spy))
    assert [len(call["hidden"]) for call in spy.calls] == [4]
    assert output.errors.policy_l is None and output.logit is None
