"""What a recipe does and costs, in plain sentences that are derived from its resolved settings."""

import inspect

from smpo.objectives import OBJECTIVES
from smpo.pipeline.config import SEAMS, Recipe, settings_text
from smpo.sweep.plan import Sweep
from smpo.training.options import OptimizerOptions, TrainingOptions


def explanation(recipe: Recipe) -> list[str]:
    """Paragraphs: what the three seams are, where the weights start, and how much is trained."""
    seams = [f"{seam.capitalize()}: {settings_text(getattr(recipe, seam))}. {_what(seam, recipe)}"
             for seam in ("labels", "noising", "objective")]
    unit = OBJECTIVES.build(recipe.objective).unit
    return [*seams, _start(recipe), _budget(recipe.training, unit), *_caching(recipe)]


def explanation_of_sweep(sweep: Sweep) -> str:
    """How many runs a sweep is, and of what."""
    runs, file = sweep.runs(), sweep.file
    rows = len({run.row for run in runs})
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))
    return f"{len(runs)} runs: {rows} rows (grids included) of recipe {file.recipe}, seeds {seeds}; in {sweep.folder}."


def _what(seam: str, recipe: Recipe) -> str:
    """The first paragraph of the member's own documentation."""
    member = SEAMS[seam].resolve(getattr(recipe, seam)["name"])
    return " ".join((inspect.getdoc(member) or "").partition("\n\n")[0].split())


def _start(recipe: Recipe) -> str:
    start, lora = recipe.init_weights or recipe.model["source"], recipe.training.lora
    objective = OBJECTIVES.build(recipe.objective)
    adapters = f" with a LoRA of rank {lora.rank} on {', '.join(lora.targets)}" if lora else ""
    if not objective.needs_reference:
        return f"Start: the policy from {start}{adapters}; there is no reference."
    if lora:
        return f"Start: the policy from {start}{adapters}; the reference is the same copy of the weights without it."
    decay = recipe.training.reference_ema_decay
    how = "is frozen" if decay is None else f"follows the policy with a decay of {decay:g} a step"
    who = f"policy and reference from {start}"
    if recipe.reference_weights not in (None, start):
        who = f"the policy from {start}, the reference from {recipe.reference_weights}"
    return f"Start: {who}; the reference {how}."


def _budget(training: TrainingOptions, unit: str) -> str:
    total = training.steps * training.batch_size
    micro, together = training.micro_batch_size, training.batch_size // training.micro_batch_size
    return (
        f"Training: {training.steps:,} optimizer steps of {training.batch_size:,} {unit}, {total:,} {unit} seen; "
        f"micro-batches of {micro}, {together:,} a step where one process does all. {_rate(training.optimizer)}"
    )


def _rate(optimizer: OptimizerOptions) -> str:
    warmup = f" after {optimizer.warmup_steps:,} steps of warm-up" if optimizer.warmup_steps else ""
    return f"{optimizer.name}, learning rate {optimizer.lr:g}{warmup}, {optimizer.schedule}."


def _caching(recipe: Recipe) -> list[str]:
    epochs = recipe.training.cached_inversion_epochs
    if epochs is None:
        return []
    after = "an epoch" if epochs == 1 else f"{epochs} epochs"
    return [
        f"Cached inversions: the draws of a pair come again after {after}; `smpo invert` inverts each example that "
        "differs once, and training needs no reference."
    ]
