"""One inversion for several timesteps: every level's latents, at the cost of one more prediction than levels."""

import pytest
import torch

from smpo.maths.inversion import invert, invert_chain
from tests.maths import references
from tests.maths.references import PATH, TABLE, draw
from tests.maths.test_inversion import Recorder

LEVELS = torch.tensor([[-1, 40, 290, 540, 790], [-1, 249, 499, 749, 999]])


@pytest.mark.parametrize("renoise", [False, True])
def test_every_level_is_where_an_inversion_that_ends_there_lands(renoise: bool) -> None:
    x_0 = draw(2, 3, seed=1)
    found = invert_chain(Recorder(), x_0, LEVELS, path=PATH, renoise=renoise)
    assert found.shape == (2, 4, 3)
    for k in range(4):
        alone = invert(
            Recorder(), x_0, LEVELS[:, : k + 2], path=PATH, refine="final" if renoise else "none",
        )
        assert torch.allclose(found[:, k], alone, rtol=1e-12)


@pytest.mark.parametrize(("renoise", "labels"), [(False, [0, 40, 290, 540]), (True, [0, 40, 290, 540, 790])])
def test_a_prediction_serves_renoise_and_the_next_step(renoise: bool, labels: list[int]) -> None:
    asked = Recorder()
    invert_chain(asked, draw(2, 3, seed=1), LEVELS, path=PATH, renoise=renoise)
    assert [label[0].item() for label in asked.labels] == labels


def test_one_link_on_a_gaussian_by_hand() -> None:
    """x_0 = 1 of variance 1 with the exact model eps = x sqrt(1 - a): a step from clean, then taken again."""
    levels, a = torch.tensor([[-1, 500]]), TABLE[500].item()
    found = invert_chain(
        references.gaussian_model(1.0), torch.ones(1, 1).double(), levels, path=PATH, renoise=True
    ).item()
    first = a**0.5 + (1 - a) ** 0.5 * (1 - TABLE[0].item()) ** 0.5  # clean latents are labelled 0
    assert found == pytest.approx(a**0.5 + (1 - a) ** 0.5 * first * (1 - a) ** 0.5, rel=1e-12)
