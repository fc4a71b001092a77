"""The files around a run: its manifest, its model folder with a card, its sample grids."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ModelMixin

from smpo.core.artefacts import Artefact, Status, begin, finish, hash_file, is_complete, reopen, write_atomically
from smpo.core.errors import DataError, StaleError
from smpo.models.export import export, family_of_folder
from smpo.sampling.options import GenerationOptions
from smpo.sampling.rendering import sample_grid
from smpo.training.cards import model_card
from smpo.training.checkpoint import checkpoints
from smpo.training.policy.finite import check_finite, non_finite
from smpo.training.policy.lora import fuse
from smpo.training.policy.lora_files import save_adapters
from smpo.training.run import METRICS, Run, model_inputs

SPEED_ONLY = {
    "checkpoint_every", "keep_checkpoints", "log_every", "trackers", "tracking", "workers", "samples",
    "micro_batch_size", "single_file",
}
LOST = "bring the files back, or delete {folder} and train again"


def begin_run(run: Run) -> Status:
    """`begin` of the run with all that decides its result; StaleError when any of it has changed."""
    options = run.options.model_dump(mode="json", exclude=SPEED_ONLY)
    for choice in ("reference_ema_decay", "lora", "cached_inversion_epochs", "compile", "channels_last"):
        if options[choice] is None or options[choice] is False:
            del options[choice]  # as in runs from before there was a choice: they stay what they are
    if not options["optimizer"]["fused"]:
        del options["optimizer"]["fused"]
    if run.options.optimizer.schedule == "constant":
        del options["steps"]
    settings = {"family": type(run.family).__name__, **run.settings, "seed": run.seed, "training": options}
    run.check_inputs()
    return begin(run.folder, stage="train", settings=settings, inputs={**run.inputs, **model_inputs(run)})


def open_run(run: Run) -> Status:
    """The state of the run's folder; writes its resolved recipe.

    A finished run whose recipe now asks for more steps is carried on, unless its learning rate knows the last step.

    Raises:
        StaleError: the folder belongs to another recipe, other inputs or another model, or has already run longer.
    """
    status = begin_run(run)
    if is_complete(run.folder):
        artefact = Artefact.open(run.folder, stage="train")
        check_not_beyond(run, artefact.results["steps"])
        if status is Status.PARTIAL:
            _check_remakeable(run, artefact)
        elif artefact.results["steps"] < run.options.steps:
            reopen(run.folder)
            status = Status.PARTIAL
    if status is Status.DONE:
        write_single_file(run)  # may be wanted of a run that has ended before
    else:
        write_atomically(run.folder / "recipe.yaml", run.recipe_yaml)
        if run.options.single_file:
            family_of_folder(run.family.folder)  # refuses now what could not be written in the end
    return status


def _check_remakeable(run: Run, artefact: Artefact) -> None:
    """DataError unless what a finished run lacks can be made from its checkpoints: its model, but not its metrics."""
    artefact.file(METRICS, way_out=LOST.format(folder=run.folder))
    if not checkpoints(run.checkpoints):
        raise DataError(f"{run.folder} lacks files of its model, and has no checkpoint to make them from; "
                        + LOST.format(folder=run.folder))


def metrics_of(folder: Path) -> Path:
    """The metrics of the finished run in `folder`; DataError when they are not what training wrote."""
    return Artefact.open(folder, stage="train").file(METRICS, way_out=LOST.format(folder=folder))


def check_not_beyond(run: Run, done: int) -> None:
    """StaleError when `done` optimizer steps are more than the run asks for."""
    if done > run.options.steps:
        raise StaleError(
            f"{run.folder} has been trained for {done} steps, asked for {run.options.steps}; choose another folder"
        )


def finish_run(run: Run, denoiser: ModelMixin) -> None:
    """Write the model folder with its card, and a LoRA's folder, each whole or not at all; mark the run complete.

    Adapters are fused into `denoiser`.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
        StaleError: the model, of which the other parts are saved too, has changed since the run was opened.
    """
    begin_run(run)
    denoiser.to("cpu")
    _check_weights(run, denoiser)
    if run.options.lora:
        options = run.options.lora
        _write_whole(run.lora_folder, lambda aside: save_adapters(run, options, denoiser, aside))
        fuse(denoiser)
        _check_weights(run, denoiser)

    def save_model(aside: Path) -> None:
        run.family.save_pipeline(denoiser, aside)
        (aside / "README.md").write_text(model_card(run))

    _write_whole(run.model_folder, save_model)
    weights = sorted((run.model_folder / run.family.component).glob("*.safetensors"))
    results = [run.model_folder, *([run.lora_folder] if run.options.lora else [])]
    files = [path for folder in results for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"]
    adapters = sorted(run.lora_folder.glob("*.safetensors")) if run.options.lora else []
    finish(run.folder, {
        "steps": run.options.steps,
        **run.results,
        "weights": {file.name: hash_file(file) for file in [*weights, *adapters]},
    }, files=[METRICS, *(path.relative_to(run.folder).as_posix() for path in files)])  # cards are people's to edit
    run.single_file.unlink(missing_ok=True)  # of fewer steps
    write_single_file(run)


def write_single_file(run: Run) -> None:
    """Write the finished model as one file, where the recipe wants it and it is not there."""
    if run.options.single_file and not run.single_file.exists():
        export(run.model_folder, run.single_file, precision=run.options.single_file, title=run.name)


def _check_weights(run: Run, denoiser: ModelMixin) -> None:
    names = non_finite(denoiser.state_dict())
    check_finite(names, step=run.options.steps, what="weights of the result are", checkpoints=run.checkpoints)


def _write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder aside that then takes the place of `folder`."""
    aside, replaced = (folder.with_name(f".tmp-{state}{folder.name}") for state in ("", "replaced-"))
    for leftover in (aside, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    write(aside)
    if folder.exists():
        os.rename(folder, replaced)
    os.rename(aside, folder)
    shutil.rmtree(replaced, ignore_errors=True)


def save_samples(run: Run, denoiser: ModelMixin, step: int) -> Path:
    """Draw the fixed prompts with the policy as it is and write samples/step-XXXXXXXX.png."""
    options = run.options.samples
    denoiser.eval()
    with torch.no_grad():
        settings = GenerationOptions(
            num_inference_steps=options.num_inference_steps, guidance_scale=options.guidance_scale, seed=run.seed
        )
        sheet = sample_grid(run.family.pipeline(denoiser).to(denoiser.device), options.prompts, options=settings)
    path = run.folder / "samples" / f"step-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
