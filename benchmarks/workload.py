"""What the step benchmarks train: a model of true shapes on random pairs that went through our stages.

The embedded tiny model has its own weights. Those of SD1.5 and SDXL are drawn on the device at every load, always the
same, so that nothing large is fetched or written; their values do not change how long a step takes.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from shutil import copytree
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTokenizer

from benchmarks.released_step import ReleasedModels, ReleasedOptions, ReleasedPair, ReleasedTrainer
from benchmarks.scoring import make_pairs
from benchmarks.timing import Step
from smpo.core.processes import Process
from smpo.core.randomness import normal_per_seed
from smpo.cost.architecture import Architecture
from smpo.cost.flops import forward_flops, trained_forwards
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.models.parts import token_ids
from smpo.models.sd import StableDiffusion
from smpo.models.sdxl import StableDiffusionXL
from smpo.pipeline.config import Recipe, load_recipe
from smpo.pipeline.stages import run_stage, run_without_cache
from smpo.preparation.cache import cache_pairs
from smpo.preparation.crops import views_of
from smpo.preparation.options import Crops
from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.parallel.replicated import Replicated
from smpo.training.policy.optimizers import build_optimizer
from smpo.training.preference_run import PreferenceRun as Run
from smpo.training.sources.pairs import MicroBatches
from smpo.training.trainer import Trainer

SHAPES = {  # name -> (family, package, folder of configurations, px)
    "tiny": ("sd", "smpo.tiny", "weights/tiny-sd", 64),
    "tiny-sdxl": ("sdxl", "smpo.tiny", "weights/tiny-sdxl", 64),
    "sd15": ("sd", "smpo.models", "published/sd", 512),
    "sdxl": ("sdxl", "smpo.models", "published/sdxl", 1024),
}
RECIPES = {"sd": "sd15-smpo", "sdxl": "sdxl-smpo"}
TOKENIZER = "weights/tiny-sd/tokenizer"
HALVES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLAIN = (  # of every run here: hard labels by the pairs' judge, no draws that the released step would have to repeat
    "scorer=null", "labels={name: hard, winner_by: human}", "data.format=parquet", "cache.flips=false",
    "training.flips=none", "training.caption_dropout=0", "training.trackers=[]", "training.steps=1000000",
    "training.optimizer.warmup_steps=0", "report.published=null",
)


class Drawn:
    """Loaders that draw weights in place of reading them."""

    def load_denoiser(self, source: str | None = None, *, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        """The UNet, the same at every call."""
        return drawn(lambda: UNet2DConditionModel.from_config(self.architecture.config("unet")), self.device, dtype)

    def load_vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """The VAE, in eval mode."""
        return drawn(lambda: AutoencoderKL.from_config(self.architecture.config("vae")), self.device, dtype).eval()

    @property
    def architecture(self) -> Architecture:
        """The shapes."""
        return Architecture(Path(self.source), is_own=True)

    def load_text_encoder(self, name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The text encoder in the folder `name`, in eval mode."""
        config = CLIPTextConfig(**self.architecture.config(name))
        return drawn(lambda: self.text_encoders[name](config), self.device, dtype).eval()

    def load_tokenizer(self, encoder: str) -> CLIPTokenizer:
        """The tiny world's tokenizer, as long as the text encoder: at true size it has fewer words than that."""
        tokenizer = CLIPTokenizer.from_pretrained(Path(self.source) / "tokenizer")
        tokenizer.model_max_length = self.architecture.config(encoder)["max_position_embeddings"]
        return tokenizer


@dataclass(frozen=True, kw_only=True)
class DrawnSD(Drawn, StableDiffusion):
    """SD1.5's family, on a device."""

    device: torch.device = field(default=torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class DrawnSDXL(Drawn, StableDiffusionXL):
    """SDXL's family, on a device."""

    device: torch.device = field(default=torch.device("cpu"))


def drawn(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> Any:
    """A network whose weights are PyTorch's initial ones, made on `device` from one seed."""
    torch.manual_seed(0)
    with device:
        network = build()
    return network if dtype == torch.float32 else network.to(dtype)


class Stepper(Trainer):
    """The trainer itself, one optimizer step at a time."""

    def __init__(self, run: Run, accelerator: Accelerator) -> None:
        super().__init__(run, accelerator, [], Replicated(accelerator), None)
        self.batches = self._batches()

    def step(self) -> dict[str, Any]:
        """One optimizer step's metrics."""
        metrics = self._step(self.batches)
        self.progress.step += 1
        return metrics


@dataclass(frozen=True)
class Plan:
    """Which workload.

    Attributes:
        root: holds the model's folder and all artefacts.
        model: a name of SHAPES.
        device: where everything is computed.
        drawn: whether weights are drawn; otherwise the model's own are loaded.
        px: resolution; None is the model's.
        settings: overrides that hold for every recipe.
    """

    root: Path
    model: str
    device: torch.device
    drawn: bool
    px: int | None = None
    settings: tuple[str, ...] = ()

    @property
    def resolution(self) -> int:
        """In px."""
        return self.px or SHAPES[self.model][3]

    @property
    def kind(self) -> str:
        """The model's family."""
        return SHAPES[self.model][0]

    @property
    def source(self) -> Path:
        """The model's folder."""
        return self.root / "model"


class Workload:
    """Cached pairs for a model on a device, as `make_workload` left them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device, source = plan, plan.device, str(plan.source)
        kinds = {"sd": DrawnSD, "sdxl": DrawnSDXL}
        self.family: StableDiffusion = kinds[plan.kind](source=source, device=plan.device) if plan.drawn \
            else FAMILIES.build({"name": plan.kind, "source": source})
        self.pairs = PairSet.open(plan.root / "data" / "pairs")

    def recipe(self, *changes: str) -> Recipe:
        """The paper's recipe for this model, with `changes` (such as "training.batch_size=64")."""
        plan = self.plan
        return load_recipe(RECIPES[plan.kind], [
            *PLAIN, f"model.source={plan.source}", f"data.source={plan.root / 'data' / 'pairs.parquet'}",
            f"cache.resolution={plan.resolution}", f"paths.workdir={plan.root / 'run'}",
            f"paths.pairs={self.pairs.folder}", *plan.settings, *changes,
        ])

    def run(self, *changes: str) -> Run:
        """The training run of such a recipe; where examples are to be stored, they are."""
        recipe = self.recipe(*changes)
        run = replace(run_without_cache(recipe), family=self.family)
        if recipe.training.cached_inversion_epochs is None:
            return run
        store = recipe.folder("invert")
        cache_inversions(run, store)
        return with_cached_inversions(run, store)

    @functools.cached_property
    def unet_flops(self) -> float:
        """FLOPs of one image's forward through the UNet."""
        return forward_flops(Architecture(self.plan.source, is_own=True), self.plan.resolution).unet


def make_workload(plan: Plan, *, pairs: int) -> Workload:
    """Draw `pairs` pairs, label them and fill the cache, all under `plan.root`, which must not hold a workload yet."""
    _, package, folder, _ = SHAPES[plan.model]
    copytree(Path(str(files(package))) / folder, plan.source)
    copytree(Path(str(files("smpo.tiny"))) / TOKENIZER, plan.source / "tokenizer", dirs_exist_ok=True)
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        plan.source / "scheduler"
    )
    side = plan.resolution
    make_pairs(plan.root / "data", pairs, size=side, format="PNG" if side <= 64 else "JPEG", winner_stays=False)
    work = Workload(plan)
    recipe = work.recipe()
    run_stage("label", recipe, lambda *_: None)
    cache_pairs(work.pairs, work.family, recipe.folder("cache"), options=recipe.cache)
    return work


def accelerator_on(device: torch.device, mixed_precision: str) -> Accelerator:
    """Accelerate on this device; one precision a process, for accelerate keeps the first."""
    return Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu")


def stepping(work: Workload, run: Run, accelerator: Accelerator) -> Step:
    """One optimizer step of our trainer; counts pairs, UNet evaluations and useful FLOPs."""
    stepper = Stepper(run, accelerator)

    def step() -> dict[str, float]:
        metrics = stepper.step()
        pairs = run.options.batch_size
        trained, free = (pairs * metrics[f"nfe_{kind}"] for kind in ("grad", "no_grad"))
        return {"pairs": pairs, "loss": metrics["loss"], **evaluated(work, run, trained, free)}

    return step


def released_stepping(work: Workload, run: Run, accelerator: Accelerator, options: ReleasedOptions) -> Step:
    """The same by the released step, over the same examples of the same pairs in the same order."""
    trainer, pair_at = released_trainer(work, run, accelerator, options), released_pairs(work, run)
    places, images = itertools.count(step=run.options.batch_size), {True: 0, False: 0}

    def count(unet: nn.Module, given: Any, output: Any) -> None:
        images[torch.is_grad_enabled()] += len(output.sample)

    for unet in (trainer.models.policy, trainer.models.reference):
        unet.register_forward_hook(count)

    def step() -> dict[str, float]:
        first = next(places)
        pairs = [pair_at(place) for place in range(first, first + run.options.batch_size)]
        images.update({True: 0, False: 0})
        logged = trainer.step(pairs)
        return {"pairs": len(pairs), "loss": logged["loss"], **evaluated(work, run, images[True], images[False])}

    return step


def evaluated(work: Workload, run: Run, trained: float, free: float) -> dict[str, float]:
    """Images through the UNet, and the FLOPs without which the step's mathematics cannot be done.

    What checkpointing repeats does not count.
    """
    forwards = trained_forwards(run.options.model_copy(update={"gradient_checkpointing": False}))
    return {"trained": trained, "free": free, "flops": work.unet_flops * (forwards * trained + free)}


def released_trainer(
    work: Workload, run: Run, accelerator: Accelerator, options: ReleasedOptions
) -> ReleasedTrainer:
    """The released step's networks, frozen ones in half precision where there is mixed precision."""
    half, family, device = HALVES[accelerator.mixed_precision], work.family, work.device
    policy = family.load_denoiser().to(device)
    if run.options.gradient_checkpointing:
        policy.enable_gradient_checkpointing()
    models = ReleasedModels(
        policy=policy, reference=family.load_denoiser(dtype=half).to(device).requires_grad_(False).eval(),
        vae=family.load_vae(half).to(device).requires_grad_(False),
        text_encoders=tuple(encoder.to(device, half).requires_grad_(False) for _, encoder in family._texts),
        alphas_cumprod=family.path.alphas_cumprod.float().to(device), autocast=accelerator.autocast, half=half,
    )
    return ReleasedTrainer(models, build_optimizer(policy.parameters(), run.options.optimizer), options)


def released_pairs(work: Workload, run: Run) -> Callable[[int], ReleasedPair]:
    """Example number -> its pair for the released step, with our draws; pixels and tokens of a pair are made once."""
    options = run.options.model_copy(update={"micro_batch_size": 1})
    examples = MicroBatches(replace(run.source, options=options), Process())
    rows = {pair_id: row for row, pair_id in enumerate(run.pairs.pair_ids)}

    @functools.cache
    def given(pair_id: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        row = rows[pair_id]
        place, winner = run.pairs.cache_rows[row], run.pairs.winner[row]
        pair = next(iter(work.pairs.iter_images(place, place + 1)))
        sides = [(pair.image_0, pair.image_1)[side] for side in (winner, 1 - winner)]
        views = Crops(work.plan.resolution, flips=False)
        pixels = torch.stack([views_of(decode_image(data), views, key="")[0].pixels for data in sides])
        tokenizers = [tokenizer for tokenizer, _ in work.family._texts]
        return pixels.to(work.device), tuple(token_ids(one, [pair.caption]).to(work.device) for one in tokenizers)

    def pair_at(position: int) -> ReleasedPair:
        batch = examples[position]
        pixels, tokens = given(batch.ids[0])
        draws = [normal_per_seed(batch.seeds, batch.x_0.shape[2:], stream=f"posterior-{image}") for image in (0, 1)]
        return ReleasedPair(
            pixels=pixels, token_ids=tokens, p_winner=float(batch.p_winner),
            timestep=batch.timesteps[0].to(work.device), posterior=torch.cat(draws).to(work.device),
        )

    return pair_at
