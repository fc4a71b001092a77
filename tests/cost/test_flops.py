"""FLOPs against published counts, and the rules of the backward against PyTorch's counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smpo.cost.architecture import architecture_of, unet_inputs
from smpo.cost.examples import example_cost
from smpo.cost.flops import flops_per_example, forward_flops, trained_forwards
from smpo.pipeline.config import load_recipe
from smpo.training.options import TrainingOptions
from smpo.training.policy.speed import speed_up
from tests.tiny_pipelines import unet as tiny_unet

PARAMETERS = {"sd15-smpo": 859_520_964, "sdxl-smpo": 2_567_463_684}


@pytest.mark.parametrize(("name", "unet", "vae", "pair"), [
    ("sd15-smpo", 0.803e12, 1.117e12, 15.3e12),
    pytest.param("sdxl-smpo", 6.761e12, 4.879e12, 128e12, marks=pytest.mark.slow),
])
def test_the_published_models_on_the_hub(name: str, unet: float, vae: float, pair: float) -> None:
    """Forwards as another FLOP counter gave them, and its work of a pair, which takes 5.5 inversions for 5.96."""
    recipe = load_recipe(name, ["training.gradient_checkpointing=false"])
    architecture = architecture_of(recipe.model)
    forwards = forward_flops(architecture, recipe.cache.resolution)
    assert not architecture.is_own
    assert sum(p.numel() for p in architecture.unet().parameters()) == PARAMETERS[name]
    assert (forwards.unet, forwards.vae) == pytest.approx((unet, vae), rel=1e-3)
    assert flops_per_example(example_cost(recipe), forwards.unet, recipe.training) == pytest.approx(pair, rel=0.06)


@pytest.mark.parametrize(("name", "changes", "forwards"), [
    ("sd15-dpo", (), 2 * 3 + 2),
    ("sd15-dpo", ("training.gradient_checkpointing=true",), 2 * 4 + 2),
    ("sd15-dpo", ("training.gradient_checkpointing=selective",), 2 * 3 + 2),
    ("tiny-demo", (), 2 * 3 + 2 + 2 * (4 + 1)),
    ("sd15-sft", (), 3),
    ("sd15-dpo", ("training.lora={rank: 8}",), 2 * 2 + 2),
    ("sdxl-mapo", ("training.gradient_checkpointing=false",), 2 * 3),
])
def test_an_example_in_forwards(name: str, changes: tuple[str, ...], forwards: int) -> None:
    """By hand: a trained evaluation is three forwards, four with checkpointing; N inversions and one ReNoise step."""
    recipe = load_recipe(name, changes)
    assert flops_per_example(example_cost(recipe), 1.0, recipe.training) == forwards


@pytest.mark.parametrize("checkpointing", [False, "selective", True])
def test_the_backward_is_two_forwards(checkpointing: bool | str) -> None:
    """Counted over a real backward; its first convolution needs no gradient of its input, and what lies between the
    blocks (a good part of so small a UNet) is not checkpointed."""
    options = TrainingOptions(steps=1, batch_size=1, optimizer={"lr": 1.0}, gradient_checkpointing=checkpointing)
    with torch.device("meta"):
        unet = tiny_unet()
        given = (torch.empty(2, 4, 8, 8), torch.zeros(2), torch.empty(2, 16, 16))
    speed_up(unet, options)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        unet(*given)
    with FlopCounterMode(display=False) as step:
        torch.autograd.backward(unet(*given).sample.sum())
    assert step.get_total_flops() / forward.get_total_flops() == pytest.approx(trained_forwards(options), rel=0.1)


def test_inputs_of_the_local_models_fit(random_sdxl) -> None:
    """A local folder's own shapes; the UNet takes what it is given."""
    architecture = architecture_of({"name": "sdxl", "source": str(random_sdxl)})
    assert architecture.is_own
    assert architecture.unet()(**unet_inputs(architecture, 3, 32)).sample.shape == (3, 4, 8, 8)
