"""Everything that `smpo cost` tells about a recipe, as one record."""

from dataclasses import dataclass

from torch import nn

from smpo.core.artefacts import MANIFEST
from smpo.core.checks import check_fraction, check_positive
from smpo.cost.architecture import Architecture, architecture_of, unet_inputs
from smpo.cost.disk import latents_bytes, prompts_bytes, stored_bytes
from smpo.cost.examples import ExampleCost, example_cost, invert_nfe
from smpo.cost.flops import Forwards, flops_per_example, forward_flops
from smpo.cost.gpus import GPU, GPUS
from smpo.cost.memory import Memory, state_bytes, training_memory
from smpo.cost.parallel import Parallel, bytes_of
from smpo.data.pair_set import PairSet
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.pipeline.config import Recipe
from smpo.pipeline.stages import prompts_of
from smpo.training.policy.lora import add_adapters, trained_parameters
from smpo.training.preference_run import order_of
from smpo.training.sources.order import distinct_examples

UTILISATION = {"sd": 0.10, "sdxl": 0.30}
"""Family -> share of the peak rate. Assumed: what the paper's GPU-hours imply for its runs on A800s, not ours."""
OVERHEAD_GIB = 1.0
"""Assumed: CUDA's context and the workspaces of cuDNN and cuBLAS."""
PICKAPIC_PAIRS, PICKAPIC_PROMPTS = 851_293, 58_960  # Pick-a-Pic v2 without ties
GIB = 2**30


@dataclass(frozen=True)
class Counts:
    """How much data there is, and how that is known."""

    pairs: int
    prompts: int
    source: str


@dataclass(frozen=True)
class Storing:
    """What `smpo invert` does.

    Attributes:
        examples: noised and stored.
        evaluations: of a UNet, forward only, for one of them; the mean over timesteps.
        flops: of them all.
        bytes: on disk.
    """

    examples: int
    evaluations: float
    flops: float
    bytes: int


@dataclass(frozen=True)
class Disk:
    """Bytes. `checkpoints` are all that are kept, and the one being written."""

    latents: int
    prompts: int
    checkpoints: int


@dataclass(frozen=True)
class Hours:
    """What a named GPU would take.

    Attributes:
        gpu: the device.
        left_gib: of its memory, negative where it does not suffice.
        caching: GPU-hours.
        storing: GPU-hours of `smpo invert`.
        training: GPU-hours.
    """

    gpu: GPU
    left_gib: float
    caching: float
    storing: float
    training: float


@dataclass(frozen=True)
class Estimate:
    """The cost of a recipe.

    Attributes:
        name: of the recipe.
        own_shapes: whether the networks' shapes are the recipe's own (`Architecture.is_own`).
        example: UNet evaluations of one.
        examples: of the whole training.
        forwards: FLOPs of the networks.
        flops_per_example: FLOPs of an example.
        caching_flops: FLOPs of `smpo cache`, (VAE, text encoders).
        storing: what `smpo invert` does; None where training noises its examples itself.
        counts: pairs and prompts.
        memory: of each training process.
        num_processes: of the training.
        split: what of the training is split over them (`Parallel`).
        disk: caches and checkpoints.
        utilisation: share of the peak rate that `hours` take for granted.
        hours: by GPU.
    """

    name: str
    own_shapes: bool
    example: ExampleCost
    examples: int
    forwards: Forwards
    flops_per_example: float
    caching_flops: tuple[float, float]
    storing: Storing | None
    counts: Counts
    memory: Memory
    num_processes: int
    split: str
    disk: Disk
    utilisation: float
    hours: tuple[Hours, ...]


def estimate(
    recipe: Recipe, counts: Counts, *, utilisation: float | None = None, num_processes: int = 1, split: str = "ddp"
) -> Estimate:
    """The cost of caching and training by `recipe`.

    Args:
        recipe: resolved.
        counts: what the cache will hold.
        utilisation: share of a GPU's peak rate, in (0, 1]; None takes the family's of UTILISATION.
        num_processes: that train together, each on its GPU.
        split: what is split over them, a member of `parallel.SPLITS`.

    Raises:
        ConfigError: a share outside (0, 1], a batch that the processes cannot share, a split that training would
            refuse, a folder without configurations.
    """
    parallel = Parallel(num_processes, split)
    share = UTILISATION[recipe.model["name"]] if utilisation is None else utilisation
    check_positive(utilisation=share)
    check_fraction(utilisation=share)
    options, resolution = recipe.training, recipe.cache.resolution
    options.accumulation(num_processes)
    architecture = architecture_of(recipe.model)
    example, forwards = example_cost(recipe, num_processes=num_processes), forward_flops(architecture, resolution)
    unet = architecture.unet()
    if options.lora:
        add_adapters(unet, options.lora, seed=0)
    images = options.micro_batch_size * (2 if example.seen == "pairs" else 1)
    memory = training_memory(
        unet, unet_inputs(architecture, images, resolution), options,
        has_reference=_has_reference(recipe), inverts=bool(example.inversion or example.ahead), parallel=parallel,
    )
    each, examples = flops_per_example(example, forwards.unet, options), options.steps * options.batch_size
    views = counts.pairs * 2 * recipe.cache.views.num_views
    caching = (views * forwards.vae, (1 + counts.prompts) * forwards.text)
    storing = _storing(recipe, architecture, counts, forwards)
    flops = (each * examples, storing.flops if storing else 0.0, *caching)
    return Estimate(
        name=recipe.name, own_shapes=architecture.is_own, example=example, examples=examples, forwards=forwards,
        flops_per_example=each, caching_flops=caching, storing=storing, counts=counts, memory=memory,
        num_processes=num_processes, split=split, disk=_disk(recipe, architecture, counts, unet), utilisation=share,
        hours=tuple(_hours(gpu, recipe, memory, share=share, flops=flops) for gpu in GPUS),
    )


def counts_of(recipe: Recipe, given: tuple[int, int] | None = None) -> Counts:
    """How many pairs and unique prompts the cache will hold: as `given`, else as the pairs folder has.

    Where neither pairs nor the prompts to sample them are at hand, the numbers are Pick-a-Pic v2's.

    Raises:
        ConfigError: a given number below 1.
    """
    if given is not None:
        pairs, prompts = given
        check_positive(pairs=pairs, prompts=prompts)
        return Counts(pairs, prompts, "as given")
    folder = recipe.folder("pairs")
    if (folder / MANIFEST).exists():
        found = PairSet.open(folder)
        return Counts(len(found), len(set(found.captions) - {""}), f"of {folder}")
    if recipe.sampling is not None:
        texts = [prompt.text for prompt in prompts_of(recipe.sampling)]
        return Counts(len(texts), len(set(texts) - {""}), "of the prompts to sample")
    return _assumed_counts(recipe.data.max_rows)


def _assumed_counts(at_most: int | None) -> Counts:
    """Those of Pick-a-Pic v2, or of `at_most` of its pairs at random; their prompts as if all had as many pairs."""
    pairs = min(at_most or PICKAPIC_PAIRS, PICKAPIC_PAIRS)
    missed = (1 - pairs / PICKAPIC_PAIRS) ** (PICKAPIC_PAIRS / PICKAPIC_PROMPTS)
    return Counts(pairs, round(PICKAPIC_PROMPTS * (1 - missed)), "Pick-a-Pic v2's, assumed: there are no pairs yet")


def _has_reference(recipe: Recipe) -> bool:
    """Whether the trainer holds a second UNet: a LoRA's is its own without adapters, cached inversions need none."""
    noising = NOISINGS.build(recipe.noising)
    asked = OBJECTIVES.build(recipe.objective).needs_reference_model(noising.network)
    return asked and recipe.training.lora is None and recipe.training.cached_inversion_epochs is None


def _storing(recipe: Recipe, architecture: Architecture, counts: Counts, forwards: Forwards) -> Storing | None:
    options = recipe.training
    if options.cached_inversion_epochs is None:
        return None
    order = order_of(recipe.seed, NOISINGS.build(recipe.noising), OBJECTIVES.build(recipe.objective), options)
    examples = distinct_examples(options.steps * options.batch_size, num_pairs=counts.pairs, order=order)
    each = invert_nfe(recipe)
    size = stored_bytes(architecture, recipe.cache, order, num_examples=examples)
    return Storing(examples, each, examples * each * forwards.unet, size)


def _disk(recipe: Recipe, architecture: Architecture, counts: Counts, unet: nn.Module) -> Disk:
    """A checkpoint holds whole tensors, however they lie over processes."""
    options, trained = recipe.training, trained_parameters(unet)
    average = bytes_of(trained) if options.ema_decay is not None else 0
    moving = bytes_of(unet.parameters()) if options.reference_ema_decay is not None else 0
    checkpoint = bytes_of(trained) + state_bytes(trained, options.optimizer.name) + average + moving
    return Disk(
        latents=latents_bytes(architecture, recipe.cache, num_pairs=counts.pairs),
        prompts=prompts_bytes(architecture, recipe.cache, num_prompts=counts.prompts),
        checkpoints=(recipe.training.keep_checkpoints + 1) * checkpoint,
    )


def _hours(gpu: GPU, recipe: Recipe, memory: Memory, *, share: float, flops: tuple[float, ...]) -> Hours:
    """GPU-hours of (training, storing, VAE, text) FLOPs, each at its precision's peak rate.

    A float32 VAE is nearly all convolutions, which cuDNN computes in TF32, at half the rate of bf16; other float32 work
    does without tensor cores unless PyTorch is told otherwise.
    """
    mixed, half_vae = recipe.training.mixed_precision != "no", recipe.cache.vae_dtype != "float32"
    training = gpu.half_tflops if mixed else gpu.float32_tflops
    rates = (training, training, gpu.half_tflops * (1 if half_vae else 0.5), gpu.float32_tflops)
    train, store, vae, text = (work / (rate * 1e12 * share * 3600) for work, rate in zip(flops, rates, strict=True))
    return Hours(gpu, gpu.memory_gib - OVERHEAD_GIB - memory.peak / GIB, vae + text, store, train)
