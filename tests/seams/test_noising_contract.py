"""The rules of `smpo.noising.noising.Noising`, checked for every member of NOISINGS under every kind of path."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.core.records import Conditioning
from smpo.maths.betas import zero_terminal_snr
from smpo.maths.path import GaussianPath, VPath, per_sample
from smpo.noising import NOISINGS
from smpo.noising.noising import NETWORKS, Noising
from tests.maths.references import PATH, TABLE
from tests.seams.batches import Model, batch_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("equations.md", "inversion.md", "cached-inversions.md")
V, ZERO_V = VPath(TABLE), VPath(zero_terminal_snr(TABLE))
PATHS = pytest.mark.parametrize("path", [PATH, V, ZERO_V], ids=["epsilon", "v", "v, zero terminal SNR"])
EVERY = pytest.mark.parametrize("name", list(NOISINGS))
TIMESTEPS = (5, 101, 640, 999)


def built(name: str) -> Noising:
    """The member with its defaults; a chain is as long as the batch."""
    return NOISINGS.build({"name": name, **({"chain_length": 4} if name == "chained" else {})})


def batch_for(noising: Noising) -> Any:
    """Examples at all ends of the schedule; of a chained noising one pair."""
    batch = batch_of(TIMESTEPS)
    if noising.chain_length > 1:
        first = torch.zeros(4, dtype=torch.long)
        batch.x_0.copy_(batch.x_0[:, first])
    return batch


@EVERY
@PATHS
@torch.no_grad()
def test_latents_and_targets_are_finite_and_belong_together(name: str, path: GaussianPath) -> None:
    """Also at the last level, where v-models with zero terminal SNR have alpha = 0; the target is the path's own."""
    noising = built(name)
    batch = batch_for(noising)
    noisy = noising(Model(), batch, path)
    assert noisy.x_t.shape == noisy.target.shape == batch.x_0.shape
    assert noisy.x_t.isfinite().all() and noisy.target.isfinite().all() and not noisy.x_t.requires_grad
    for side in (0, 1):
        expected = path.target_of(noisy.x_t[side], batch.x_0[side], noisy.timesteps)
        torch.testing.assert_close(noisy.target[side], expected, rtol=1e-4, atol=2e-4)


@EVERY
@PATHS
@torch.no_grad()
def test_a_batch_gives_what_its_examples_give_alone(name: str, path: GaussianPath) -> None:
    noising = built(name)
    if noising.chain_length > 1:
        pytest.skip("the rows of a chain belong together; tests/seams/test_noising.py")
    together = noising(Model(), batch_of(TIMESTEPS), path)
    for row, timestep in enumerate(TIMESTEPS):
        alone = noising(Model(), batch_of([timestep], first=row), path)
        torch.testing.assert_close(alone.x_t[:, 0], together.x_t[:, row], rtol=1e-5, atol=1e-5)


class AsV:
    """The same denoiser as `Model`, whose output is v: alpha eps - sigma (x - sigma eps) / alpha."""

    def __init__(self) -> None:
        self.model = Model()

    def __call__(self, x_t: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
        noise = self.model(x_t, timesteps, given)
        alpha, sigma = (per_sample(coefficient, x_t) for coefficient in PATH.mixture(timesteps))
        return alpha * noise - sigma * (x_t - sigma * noise) / alpha


@EVERY
@torch.no_grad()
def test_one_denoiser_gives_the_same_latents_whatever_it_is_said_to_predict(name: str) -> None:
    """Forward noise is drawn alike. An inversion moves alike along eps and along the v of the same eps where a step's
    prediction is made at its own level; from clean latents (labelled 0, alpha_bar_0 = 0.99915) and under target labels
    the conversion is taken at another level, so that only a single step under its own label agrees to rounding.
    """
    noising = built(name)
    batch = batch_for(noising)
    eps, v = noising(Model(), batch, PATH), noising(AsV(), batch, V)
    if noising.network is None:
        torch.testing.assert_close(v.x_t, eps.x_t, rtol=1e-6, atol=1e-6)
    alpha, sigma = (coefficient.float().view(1, -1, 1, 1, 1) for coefficient in PATH.mixture(v.timesteps))
    noise_of_v = (v.x_t - alpha * batch.x_0) / sigma
    torch.testing.assert_close(v.target, alpha * noise_of_v - sigma * batch.x_0, rtol=1e-3, atol=1e-3)


@EVERY
def test_what_a_member_says_of_itself(name: str) -> None:
    noising = built(name)
    assert noising.network in (*NETWORKS, None) and noising.chain_length >= 1
    assert PATH.kind in noising.path_kinds and any(f"`{name}`" in (DOCS / page).read_text() for page in PAGES)
