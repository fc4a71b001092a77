"""Seam 2: what each noising returns, asks and draws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smpo.core.errors import ConfigError
from smpo.core.randomness import normal_per_seed
from smpo.core.records import Conditioning, NoisyPair, TrainingBatch, flatten_sides
from smpo.maths.inversion import GRIDS, inversion_levels, invert
from smpo.noising import NOISINGS
from smpo.noising.chained import Chained
from smpo.noising.forward import Forward
from smpo.noising.inversion import DDIM, Heun, Midpoint, ReNoise, ReNoiseEvery, guided
from smpo.noising.released import Released
from tests.maths.references import PATH, TABLE, released_levels, transfer
from tests.seams.batches import SHAPE, Model, batch_of, winners

LABELLED = (DDIM, ReNoise, Heun)
INVERSIONS = (*LABELLED, Midpoint, ReNoiseEvery)


def refuse(*given: object) -> Tensor:
    raise AssertionError("forward noising must not ask the model")


def pairs_equal(one: NoisyPair, other: NoisyPair, **tolerance: float) -> bool:
    return all(
        torch.allclose(getattr(one, name), getattr(other, name), **tolerance) for name in ("x_t", "target", "timesteps")
    )


def joined(singles: list[NoisyPair]) -> NoisyPair:
    return NoisyPair(
        torch.cat([one.x_t for one in singles], dim=1), torch.cat([one.target for one in singles], dim=1),
        torch.cat([one.timesteps for one in singles]),
    )


# --- forward ---

@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_forward_is_the_forward_process_on_the_returned_target(noise: str) -> None:
    batch = batch_of()
    noisy = Forward(noise=noise)(refuse, batch, PATH)
    for side in (0, 1):
        assert torch.allclose(noisy.x_t[side], PATH.mix(batch.x_0[side], noisy.target[side], batch.timesteps))
    assert torch.equal(noisy.timesteps, batch.timesteps)
    assert noisy.x_t.dtype == noisy.target.dtype == torch.float32


def test_shared_noise_is_equal_on_both_sides_and_independent_noise_is_not() -> None:
    shared = Forward(noise="shared")(refuse, batch_of(), PATH).target
    independent = Forward(noise="independent")(refuse, batch_of(), PATH).target
    assert torch.equal(shared[0], shared[1])
    assert ((independent[0] - independent[1]).abs() > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_forward_noise_depends_on_seeds_alone(noise: str) -> None:
    """Other batch mates, another order and another global state: the same draw for the same seed."""
    forward = Forward(noise=noise)
    together = forward(refuse, batch_of(seeds=[7, 8, 9, 2**40]), PATH).target
    torch.manual_seed(123)
    torch.randn(5)
    shuffled = forward(refuse, batch_of(seeds=[9, 2**40, 8, 7]), PATH).target
    alone = forward(refuse, batch_of([5], seeds=[8]), PATH).target
    assert torch.equal(shuffled[:, [3, 2, 0, 1]], together)
    assert torch.equal(alone, together[:, 1:2])
    assert not torch.equal(together[:, 0], together[:, 1])


def test_forward_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Forward()(refuse, batch_of(), PATH)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_winners_alone_draw_what_winners_of_pairs_draw(noise: str) -> None:
    batch, forward = batch_of(), Forward(noise=noise)
    assert torch.equal(
        forward(refuse, winners(batch), PATH).target, forward(refuse, batch, PATH).target[:1])


def test_independent_noise_is_standard_normal_and_uncorrelated() -> None:
    """n = 2 * 250 * 16 = 8000 draws: mean within 4 / sqrt(n) = 0.045, variance within 4 sqrt(2 / n) = 0.063."""
    batch = batch_of([500] * 250)
    noise = Forward(noise="independent")(refuse, batch, PATH).target.double()
    assert abs(noise.mean()) < 0.045 and abs(noise.var() - 1) < 0.063
    sides = np.corrcoef(noise[0].flatten().numpy(), noise[1].flatten().numpy())[0, 1]
    neighbours = np.corrcoef(noise[0, :-1].flatten().numpy(), noise[0, 1:].flatten().numpy())[0, 1]
    assert abs(sides) < 0.064 and abs(neighbours) < 0.064  # 4 / sqrt(4000)


# --- inversions ---

@pytest.mark.parametrize("noising", [
    *(kind(grid=grid, labels=labels) for kind in LABELLED for grid in GRIDS[:2] for labels in ("source", "target")),
    *(kind(grid=grid) for kind in (Midpoint, ReNoiseEvery) for grid in GRIDS[:2]),
    ReNoiseEvery(rounds=4, averaged=3), Released(timestep="reached"), Released(timestep="reached", predictions=1),
    Released(timestep="reached", inversion_steps=4),
], ids=str)
def test_latents_and_tau_share_their_alpha_bar(noising: Any) -> None:
    """D13: with a model of constant noise x_t must sit exactly on (t, abar_t) and tau must be that noise."""
    batch = batch_of([1, 101, 640, 999])
    eps = torch.sin(torch.arange(2.0 * 4 * 16)).view(2, 4, *SHAPE)

    def predict(x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        return flatten_sides(eps)[(given.tensors["hidden"]).long()]

    numbered = Conditioning({"hidden": torch.arange(8)})
    batch = type(batch)(**{**vars(batch), "conditioning": numbered})
    noisy = noising(predict, batch, PATH)
    abar = TABLE[noisy.timesteps].view(1, -1, 1, 1, 1)
    assert isinstance(noising, Released) or torch.equal(noisy.timesteps, batch.timesteps)
    assert torch.allclose(noisy.x_t.double(), abar.sqrt() * batch.x_0 + (1 - abar).sqrt() * eps, atol=1e-5)
    assert torch.allclose(noisy.target, eps, atol=3e-5)


@pytest.mark.parametrize(("kind", "refine", "labels"), [
    *((kind, kind.refine, {"labels": "target"}) for kind in LABELLED),
    (Midpoint, "midpoint", {}), (ReNoiseEvery, "renoise_every", {}),
])
def test_each_inversion_binds_its_refinement(kind: type, refine: str, labels: dict[str, str]) -> None:
    batch, model = batch_of(), Model()
    noisy = kind(inversion_steps=4, grid="subdivide", **labels)(model, batch, PATH)
    x_t = invert(
        lambda x, t, rows: model(x, t, batch.conditioning.rows(rows)), flatten_sides(batch.x_0),
        inversion_levels(batch.timesteps.repeat(2), num_steps=4, grid="subdivide"), path=PATH,
        refine=refine, **labels,
    )
    assert torch.equal(flatten_sides(noisy.x_t), x_t)


@pytest.mark.parametrize("kind", [*INVERSIONS, Released])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_inverted_batch_equals_its_pairs_alone(kind: type, scale: float) -> None:
    """D6, D22: every pair has its own t, prompt and number of steps."""
    noising = kind(inversion_cfg=scale)
    together = noising(Model(), batch_of(), PATH)
    alone = [noising(Model(), batch_of([t], first=i), PATH) for i, t in enumerate(batch_of().timesteps.tolist())]
    assert pairs_equal(together, joined(alone), atol=1e-5)


@pytest.mark.parametrize("kind", [*INVERSIONS, Released])
def test_winners_alone_are_noised_as_in_their_pairs(kind: type) -> None:
    batch = batch_of()
    alone, pairs = kind()(Model(), winners(batch), PATH), kind()(Model(), batch, PATH)
    assert torch.allclose(alone.x_t, pairs.x_t[:1], atol=1e-6) and alone.x_t.shape == (1, 4, *SHAPE)


@pytest.mark.parametrize("kind", [*INVERSIONS, Released])
def test_no_gradient_leaves_an_inversion(kind: type) -> None:
    model = Model()
    noisy = kind()(model, batch_of(), PATH)
    assert model.weight.requires_grad and not noisy.x_t.requires_grad and not noisy.target.requires_grad


@pytest.mark.parametrize(("scale", "prompts"), [
    (1.0, [0.1] * 3), (0.0, [-0.5] * 3), (3.0, [-0.5, 0.1] * 3),
])
def test_guidance_asks_with_and_without_prompt(scale: float, prompts: list[float]) -> None:
    """D39: 1 = conditional, 0 = unconditional, others two evaluations a step; 3 steps of one pair."""
    model = Model()
    DDIM(inversion_steps=3, grid="subdivide", inversion_cfg=scale)(model, batch_of([600]), PATH)
    assert [c.tolist() for _, c in model.calls] == [pytest.approx([prompt] * 2) for prompt in prompts]
    steps = [labels.tolist() for labels, _ in model.calls][:: len(prompts) // 3]
    assert steps == [[0, 0], [200, 200], [400, 400]]


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.4), (0.0, -0.2), (3.0, 1.6)])
def test_guided_prediction_by_hand(scale: float, expected: float) -> None:
    """Conditional 0.4, unconditional -0.2: -0.2 + 3 (0.4 + 0.2) = 1.6."""
    batch = batch_of([600])

    def predict(x: Tensor, t: Tensor, given: Conditioning) -> Tensor:
        return torch.where(given.tensors["hidden"] > 0, 0.4, -0.2).view(-1, 1, 1, 1).expand_as(x)

    rows = torch.tensor([1, 0])
    guess = guided(predict, batch, scale)(flatten_sides(batch.x_0), torch.tensor([5, 5]), rows)
    assert torch.allclose(guess, torch.full((2, *SHAPE), expected))


def test_guidance_three_by_hand_over_one_step() -> None:
    """One step clean -> 500 with constant guided noise 1.6: x_t = sqrt(abar) x_0 + sqrt(1 - abar) 1.6, tau = 1.6."""
    batch = batch_of([500])

    def predict(x: Tensor, t: Tensor, given: Conditioning) -> Tensor:
        return torch.where(given.tensors["hidden"] > 0, 0.4, -0.2).view(-1, 1, 1, 1).expand_as(x)

    noisy = DDIM(inversion_steps=1, inversion_cfg=3.0)(predict, batch, PATH)
    expected = TABLE[500].sqrt() * batch.x_0 + (1 - TABLE[500]).sqrt() * 1.6
    assert torch.allclose(noisy.x_t.double(), expected.double(), atol=1e-6)
    assert torch.allclose(noisy.target, torch.full_like(noisy.target, 1.6), atol=1e-6)


# --- chained ---

CHAINS = batch_of([40, 290, 540, 790, 249, 499, 749, 999])


def linked(batch: TrainingBatch) -> TrainingBatch:
    """Two chains of four examples: the examples of a chain show the first one's pair."""
    pair = torch.arange(8) // 4 * 4
    return replace(batch, x_0=batch.x_0[:, pair], conditioning=batch.conditioning.rows(torch.cat([pair, pair + 8])))


@pytest.mark.parametrize("renoise", [False, True])
def test_every_visit_of_a_chain_equals_its_own_inversion(renoise: bool) -> None:
    batch = linked(CHAINS)
    noisy = Chained(chain_length=4, renoise=renoise)(Model(), batch, PATH)
    for row in range(8):
        first, t = row // 4 * 4, batch.timesteps[row]
        levels = torch.tensor([[-1, *batch.timesteps[first : row + 1].tolist()]] * 2)
        both = batch.conditioning.rows(torch.tensor([row, row + 8]))
        x_t = invert(
            lambda x, labels, rows, both=both: Model()(x, labels, both.rows(rows)), batch.x_0[:, row], levels,
            path=PATH, refine="final" if renoise else "none",
        )
        assert torch.allclose(noisy.x_t[:, row], x_t, atol=1e-6)
        assert torch.allclose(PATH.mix(batch.x_0[:, row], noisy.target[:, row], torch.tensor([t, t])), x_t, atol=1e-5)
    assert torch.equal(noisy.timesteps, batch.timesteps)
    assert not noisy.x_t.requires_grad


@pytest.mark.parametrize(("renoise", "images"), [(True, 2 * 2 * 5), (False, 2 * 2 * 4)])
def test_a_chain_costs_one_image_more_than_its_links(renoise: bool, images: int) -> None:
    model = Model()
    Chained(chain_length=4, renoise=renoise)(model, linked(CHAINS), PATH)
    assert sum(len(labels) for labels, _ in model.calls) == images


@pytest.mark.parametrize(("timesteps", "message"), [
    ([40, 290, 540], "chains of 2, got 3 examples"), ([40, 290, 540, 500], "must rise"),
])
def test_rows_that_are_no_chains_raise(timesteps: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chained(chain_length=2)(Model(), batch_of(timesteps), PATH)


# --- the released variant ---

def released_by_hand(x: np.ndarray, t: int, c: float, set_timesteps: int) -> np.ndarray:
    """METHODS 3.3.4, labels clamped at 0: e_1, y, e_2 under one label, a step along their mean."""
    path = released_levels(t, set_timesteps)
    for a, b in zip(path, path[1:], strict=False):
        e_1 = np.sin(x + c)
        e_2 = np.sin(transfer(x, e_1, a, b) + c)
        x = transfer(x, (e_1 + e_2) / 2, a, b)
    return x


@pytest.mark.parametrize(("steps", "set_timesteps"), [(9, 10), (4, 5)])
def test_released_equals_the_released_loop(steps: int, set_timesteps: int) -> None:
    """Latents stop on the grid, tau and label take t (D13)."""
    batch = batch_of()
    noisy = Released(inversion_steps=steps)(Model(), batch, PATH)
    for pair, t in enumerate(batch.timesteps.tolist()):
        for side in (0, 1):
            x_0 = batch.x_0[side, pair].double().numpy()
            x = released_by_hand(x_0, t, 0.1 * (pair + 1), set_timesteps)
            np.testing.assert_allclose(noisy.x_t[side, pair], x, atol=1e-5)
            tau = (x - np.sqrt(TABLE[t].item()) * x_0) / np.sqrt(1 - TABLE[t].item())
            np.testing.assert_allclose(noisy.target[side, pair], tau, atol=1e-4)
    assert torch.equal(noisy.timesteps, batch.timesteps)


def test_released_labels_are_the_grid_clamped_at_zero() -> None:
    """t = 250 of grid 10: labels -99 -> 0, 1, 101, 201, each asked twice."""
    model = Model()
    Released()(model, batch_of([250]), PATH)
    assert [labels.tolist() for labels, _ in model.calls] == [[s] * 2 for s in (0, 0, 1, 1, 101, 101, 201, 201)]


@pytest.mark.parametrize("predictions", [1, 2])
def test_released_asks_once_or_twice_a_step(predictions: int) -> None:
    model = Model()
    Released(predictions=predictions)(model, batch_of([250]), PATH)
    assert [labels[0].item() for labels, _ in model.calls] == [s for s in (0, 1, 101, 201) for _ in range(predictions)]


def test_one_prediction_a_step_equals_the_released_loop_of_inpo() -> None:
    batch = batch_of()
    noisy = Released(predictions=1)(Model(), batch, PATH)
    for pair, t in enumerate(batch.timesteps.tolist()):
        x = batch.x_0[0, pair].double().numpy()
        path = released_levels(t, 10)
        for a, b in zip(path, path[1:], strict=False):
            x = transfer(x, np.sin(x + 0.1 * (pair + 1)), a, b)
        np.testing.assert_allclose(noisy.x_t[0, pair], x, atol=1e-5)


def jittered(batch: TrainingBatch, jitter: float = 0.1) -> NoisyPair:
    return Released(predictions=1, jitter=jitter)(Model(), batch, PATH)


def test_jitter_by_hand() -> None:
    """With eps = 0 every step only scales, by sqrt(abar_b / abar_a): a step's jitter reaches the end scaled likewise.

    t = 150 of grid 10: levels 0, 1, 101, 201.
    """
    batch = batch_of([150], seeds=[7])
    noisy = Released(predictions=1, jitter=0.3)(lambda x, t, given: torch.zeros_like(x), batch, PATH)
    for side in (0, 1):
        x = batch.x_0[side, 0].double()
        for step, (a, b) in enumerate([(0, 1), (1, 101), (101, 201)]):
            variance = (1 - TABLE[a]) / (1 - TABLE[b]) * (1 - TABLE[b] / TABLE[a])
            z = normal_per_seed(torch.tensor([7]), SHAPE, stream=f"jitter-{step}-{side}")[0].double()
            x = (TABLE[b] / TABLE[a]).sqrt() * x + 0.3 * variance.sqrt() * z
        torch.testing.assert_close(noisy.x_t[side, 0].double(), x, atol=1e-5, rtol=1e-5)
        tau = (x - TABLE[150].sqrt() * batch.x_0[side, 0]) / (1 - TABLE[150]).sqrt()
        torch.testing.assert_close(noisy.target[side, 0].double(), tau, atol=1e-5, rtol=1e-5)


def test_jitter_is_a_function_of_the_seed_and_the_side() -> None:
    """Whatever the company; the winner shown alone gets what it gets in its pair; other seeds give other noise."""
    batch, plain = batch_of(), jittered(batch_of(), 0.0)
    together = jittered(batch)
    alone = [jittered(batch_of([t], first=i, seeds=[i])) for i, t in enumerate(batch.timesteps.tolist())]
    assert pairs_equal(together, joined(alone), atol=1e-5)
    assert torch.allclose(jittered(winners(batch)).x_t, together.x_t[:1], atol=1e-6)
    assert not torch.allclose(jittered(batch_of(seeds=[9, 8, 7, 6])).x_t, together.x_t, atol=1e-3)
    moved = together.x_t - plain.x_t
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)


def test_snapping_t_removes_the_mismatch() -> None:
    """timestep="reached": labels are the levels reached; the latents start clean, so that tau is the constant noise.

    As released (D19) they start at level 0: tau would be 0.294 of the noise at level 1 and 0.949 at 201.
    """
    batch = batch_of()
    noisy = Released(timestep="reached")(lambda x, t, given: torch.full_like(x, 0.7), batch, PATH)
    assert noisy.timesteps.tolist() == [101, 101, 701, 901]
    abar = TABLE[noisy.timesteps].view(1, -1, 1, 1, 1)
    assert torch.allclose(noisy.x_t.double(), abar.sqrt() * batch.x_0 + (1 - abar).sqrt() * 0.7, atol=1e-5)
    assert torch.allclose(noisy.target, torch.full_like(noisy.target, 0.7), atol=3e-5)
    drawn = Released()(lambda x, t, given: torch.full_like(x, 0.7), batch_of([1, 201]), PATH).target / 0.7
    assert drawn.mean(dim=(0, 2, 3, 4)).tolist() == pytest.approx([0.294, 0.949], abs=1e-3)


def test_released_target_is_wrong_where_level_and_label_differ() -> None:
    """The oracle of METHODS 18.4 does fail on D13: at t = 5 the latents sit at 101 and tau is far from 0.7."""
    noisy = Released()(lambda x, t, given: torch.full_like(x, 0.7), batch_of([5, 101]), PATH)
    assert (noisy.target[:, 0] - 0.7).abs().mean() > 1 and (noisy.target[:, 1] - 0.7).abs().max() < 0.1


# --- settings ---

@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "forward", "noise": "share"},
     "noising: unknown noising.noise 'share'; known: shared, independent. Did you mean 'shared'?"),
    ({"name": "renoise", "grid": "released"},
     "noising: unknown noising.grid 'released'; known: subdivide, fixed_stride."),
    ({"name": "ddim", "labels": "targets"},
     "noising: unknown noising.labels 'targets'; known: source, target. Did you mean 'target'?"),
    ({"name": "heun", "network": "ref"}, "noising: unknown noising.network 'ref'; known: policy, reference."
                                         " Did you mean 'reference'?"),
    ({"name": "ddim", "inversion_steps": 0}, "noising: noising.inversion_steps must be >= 1, got 0"),
    ({"name": "released", "predictions": 3}, "noising: noising.predictions must be 2 (SmPO's) or 1 (InPO's), got 3"),
    ({"name": "released", "jitter": -0.1}, "noising: noising.jitter must be a finite number >= 0, got -0.1"),
    ({"name": "released", "timestep": "true"}, "noising: unknown noising.timestep 'true'; known: drawn, reached."),
])
def test_unusable_settings_are_one_line_errors(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NOISINGS.build(settings)
    assert str(error.value) == message


def test_defaults_are_the_papers() -> None:
    """METHODS 2.5: 9 steps, CFG 1, trained network; 4.1: source labels and one final ReNoise step."""
    renoise = NOISINGS.build({"name": "renoise"})
    assert (renoise.inversion_steps, renoise.inversion_cfg, renoise.network) == (9, 1.0, "policy")
    assert (renoise.labels, renoise.refine) == ("source", "final")
    assert NOISINGS.build({"name": "forward"}).noise == "shared"
