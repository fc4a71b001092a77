"""The training section of a recipe: batch sizes in pairs, effective learning rates, optimizer steps."""

from typing import Literal

from pydantic import Field, model_validator

from smpo.core.cross_checks import RecipeParts
from smpo.core.errors import ConfigError
from smpo.core.sections import Section

Tracker = Literal["tensorboard", "wandb", "trackio", "comet_ml", "mlflow", "aim", "clearml", "dvclive", "swanlab"]
"""Trackers that accelerate can write to; each but TensorBoard is a package of its own."""
LARGEST_SCHEDULE = 10_000  # noise levels; every public model has 1,000 (the model's own number is compared in training)


class OptimizerOptions(Section):
    """AdamW, also with moments of 8 bits, or Adafactor, and the learning rate's course.

    Attributes:
        name: the optimizer.
        weight_decay: decoupled, times the learning rate.
        max_grad_norm: a gradient of a larger norm is scaled down to it.
    """

    name: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    lr: float = Field(gt=0, description="the effective learning rate: nothing is multiplied into it")
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    eps: float = Field(1e-8, gt=0, description="AdamW's")
    fused: bool = Field(False, description="adamw: update all weights in one kernel, which holds no copy of them")
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up")
    max_grad_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _usable(self) -> "OptimizerOptions":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must lie in [0, 1), got {list(self.betas)}")
        if self.fused and self.name != "adamw":
            raise ConfigError(f"fused is a way of adamw, got name={self.name}; set fused=false or name=adamw")
        return self


class SampleOptions(Section):
    """The grid of images of fixed prompts, generated during training.

    Attributes:
        prompts: one image each.
        num_inference_steps: steps of the pipeline's scheduler.
        guidance_scale: classifier-free guidance; 1 switches it off.
    """

    every: int = Field(0, ge=0, description="optimizer steps between grids; 0 draws none")
    prompts: tuple[str, ...] = ()
    num_inference_steps: int = Field(25, gt=0)
    guidance_scale: float = Field(7.5, ge=0)


class TrackingOptions(Section):
    """How trackers name the run."""

    project: str = Field("smpo", min_length=1, description="of W&B and other trackers that have projects")
    run: str | None = Field(None, description="name of the run; None is the recipe's name")


class LoraOptions(Section):
    """Adapters of low rank on the UNet, trained in its place: W + alpha / rank B A.

    Attributes:
        rank: columns of B and rows of A.
    """

    rank: int = Field(8, gt=0)
    alpha: float | None = Field(None, gt=0, description="None is the rank, so that B A counts as it is")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what an adapter reads")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1,
        description="ends of the names of linear and convolutional modules",
    )
    dora: bool = Field(False, description="train the norm of each row, too; not for ComfyUI and A1111")
    init: Literal["gaussian", "kaiming"] = Field("gaussian", description="of A; B starts at zero")

    @property
    def scaled_by(self) -> float:
        """Alpha, resolved."""
        return self.rank if self.alpha is None else self.alpha


def check_one_copy(init_weights: str | None, reference_weights: str | None) -> None:
    """ConfigError where the reference has other weights than those under the policy's adapters."""
    if reference_weights not in (None, init_weights):
        raise ConfigError(
            "training.lora keeps one copy of the weights, whose adapters are off for the reference; got "
            f"init_weights={init_weights} and reference_weights={reference_weights}: leave reference_weights out, "
            "or set training.lora=null"
        )


class TrainingOptions(Section):
    """How the policy is trained.

    Attributes:
        caption_dropout: share of examples whose prompt is replaced by the empty one.
        flips: mirror no image, both images of a pair alike, or each by its own draw.
        min_timestep: the smallest timestep that is drawn.
        max_timestep: the largest timestep that is drawn.
        mixed_precision: number format of the UNet's products; weights and losses stay float32.
        keep_checkpoints: so many of the newest are kept.
        trackers: what gets the metrics beside metrics.jsonl, by accelerate's names.
    """

    steps: int = Field(gt=0, description="optimizer steps")
    batch_size: int = Field(gt=0, description=(
        "pairs an optimizer step, over all processes and micro-batches; images for objectives that see one at a time"
    ))
    micro_batch_size: int = Field(1, gt=0, description="pairs (or images) a forward pass, on each process")
    optimizer: OptimizerOptions
    lora: LoraOptions | None = Field(None, description="None trains all weights of the UNet")
    caption_dropout: float = Field(0.2, ge=0, le=1)
    flips: Literal["none", "shared", "independent"] = "independent"
    latents: Literal["sample", "mean"] = Field("sample", description="of the VAE's posterior")
    min_timestep: int = Field(1, ge=1)
    max_timestep: int = Field(999, ge=1, lt=LARGEST_SCHEDULE)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool | Literal["selective"] = Field(
        False, description="make activations again in the backward: all, or but the outputs of matrix products"
    )
    tf32: bool = Field(False, description=(
        "round the factors of float32 products and convolutions to 10 bits, on NVIDIA GPUs: faster, 1e-3 off"
    ))
    compile: bool = Field(False, description="compile the UNet's transformer blocks; minutes at the start")
    channels_last: bool = Field(False, description="keep convolutions' weights and images channel by channel")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="None keeps no moving average")
    reference_ema_decay: float | None = Field(
        None, ge=0, lt=1, description="d of reference <- d reference + (1 - d) policy after each step; None freezes it"
    )
    cached_inversion_epochs: int | None = Field(None, gt=0, description=(
        "epochs until the draws of a pair come again, noised and seen by the reference once, by `smpo invert`; None "
        "does both in training, anew for each example"
    ))
    checkpoint_every: int = Field(50, gt=0, description="optimizer steps")
    keep_checkpoints: int = Field(2, gt=0)
    log_every: int = Field(1, gt=0, description="optimizer steps")
    trackers: tuple[Tracker, ...] = Field(("tensorboard",), description="where metrics and sample grids go, too")
    tracking: TrackingOptions = TrackingOptions()
    workers: int = Field(0, ge=0, description="processes that read the cache")
    samples: SampleOptions = SampleOptions()
    single_file: Literal["float16", "float32"] | None = Field(None, description=(
        "also write the trained model as one .safetensors, for ComfyUI and A1111, in this precision"
    ))

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingOptions":
        if self.min_timestep > self.max_timestep:
            raise ConfigError(f"min_timestep {self.min_timestep} exceeds max_timestep {self.max_timestep}")
        if self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size must be a multiple of micro_batch_size {self.micro_batch_size}, got {self.batch_size}"
            )
        if self.lora is not None and self.reference_ema_decay is not None:
            raise ConfigError(
                f"reference_ema_decay={self.reference_ema_decay} moves a reference, and that of training.lora is the "
                "frozen base; set one of them to null"
            )
        return self

    def check_recipe(self, recipe: RecipeParts) -> None:
        """Raise ConfigError unless the cache, the objective, the noising and the weights are what training needs."""
        if self.flips != "none" and not recipe.cached_flips:
            raise ConfigError(f"training.flips={self.flips} needs cache.flips=true, got false")
        decay = self.reference_ema_decay
        has_reference = recipe.objective.needs_reference or recipe.noising.network == "reference"
        if decay is not None and not has_reference:
            raise ConfigError(
                f"training.reference_ema_decay={decay} moves a reference, and objective "
                f"'{recipe.names['objective']}' has none; set it to null"
            )
        if self.micro_batch_size % recipe.noising.chain_length:
            raise ConfigError(
                f"training.micro_batch_size must be a multiple of noising.chain_length={recipe.noising.chain_length}, "
                f"for it holds whole chains; got {self.micro_batch_size}"
            )
        if self.cached_inversion_epochs is not None:
            self._check_cacheable(recipe)
        if self.lora is not None:
            check_one_copy(recipe.init_weights, recipe.reference_weights)

    def _check_cacheable(self, recipe: RecipeParts) -> None:
        """Raise ConfigError unless what `smpo invert` caches is needed, and stays true in training."""
        key = f"training.cached_inversion_epochs={self.cached_inversion_epochs}"
        if not recipe.objective.needs_reference:
            raise ConfigError(
                f"{key} stores a reference's errors, and objective '{recipe.names['objective']}' needs none; "
                "set it to null"
            )
        if recipe.noising.network == "policy":
            raise ConfigError(
                f"{key} needs latents of the reference, got noising.network=policy; set noising.network=reference, or "
                "cached_inversion_epochs to null"
            )
        if self.reference_ema_decay is not None:
            raise ConfigError(
                f"{key} needs a reference that stands still, got reference_ema_decay={self.reference_ema_decay}; set "
                "one of them to null"
            )

    def accumulation(self, num_processes: int) -> int:
        """Micro-batches an optimizer step on each process.

        Raises:
            ConfigError: `batch_size` does not divide into whole micro-batches for every process.
        """
        together = self.micro_batch_size * num_processes
        if self.batch_size % together:
            raise ConfigError(
                f"training.batch_size must be a multiple of micro_batch_size x processes = {self.micro_batch_size} x "
                f"{num_processes}, got {self.batch_size}; change micro_batch_size or the number of processes"
            )
        return self.batch_size // together


class ImplicitOptions(Section):
    """Where on the noise schedule the margins are taken; every pair gets the same timesteps and its own fixed noise.

    Attributes:
        timesteps: at which margins are taken; a pair's margin is their mean.
        seed: of the noise.
    """

    timesteps: tuple[int, ...] = Field((100, 300, 500, 700, 900), min_length=1)
    seed: int = Field(0, ge=0)
    batch_size: int = Field(8, gt=0, description="pairs a forward pass; changes the speed only")
