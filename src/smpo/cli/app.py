"""The verbs. Each stage verb takes a recipe (a file or a shipped name) and dotted overrides."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from smpo import __version__
from smpo.cli.boundary import stage_named
from smpo.cli.display import Display
from smpo.core.errors import ProcessError
from smpo.pipeline.recipe_files import sweep_path

VERBS = {
    "sample": "Generate pairs of images with the model itself.",
    "pairs": "Check a pair set: Pick-a-Pic parquet, HF dataset, jsonl or win/lose folders.",
    "score": "Score both images of every pair with a reward model.",
    "label": "Name each pair's winner and its smoothed probability.",
    "cache": "Encode every image and prompt once.",
    "invert": "Invert the training's examples once, if training.cached_inversion_epochs is set.",
    "train": "Train the policy; the same command again resumes.",
    "generate": "Generate images of prompts with the base and the trained model.",
    "evaluate": "Score the images and compare the models.",
    "report": "Write report.html, report.md and figures.",
}

CHECKED = {"cache", "train"}
"""Verbs that begin with the checks of `smpo check` that concern them, as `smpo run` does: long ones."""


def place(text: str) -> Path:
    """A path of the command line; `~` is expanded also where the shell has not, as in --out=~/runs."""
    return Path(text).expanduser()


RecipeArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe (`smpo show`).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as training.batch_size=4.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the recipe, for training also its cost; do nothing.")]

app = typer.Typer(
    name="smpo", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Align text-to-image diffusion models with image preferences: SmPO-Diffusion and its baselines.",
)


def _version(is_given: bool) -> None:
    if is_given:
        print(__version__)
        raise typer.Exit


VersionFlag = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def options(version: VersionFlag = False) -> None:
    """Options of the program itself."""


def run_stages(names: list[str] | None, recipe_name: str, overrides: list[str] | None, *, dry_run: bool) -> None:
    """Load the recipe and run these stages, or all that it needs, in order."""
    from smpo.pipeline.config import dump_recipe, load_recipe

    recipe = load_recipe(recipe_name, overrides or [])
    if dry_run:
        print(dump_recipe(recipe), end="")
        if names == ["train"]:
            from smpo.cli import costing

            print(costing.as_comment(recipe), end="")
        return
    from smpo.pipeline import stages
    from smpo.pipeline.prerequisites import check_prerequisites

    display, coming = Display(), names or stages.stages_of(recipe)
    check_prerequisites(coming, recipe, recipe_name)
    if names is None or set(names) & CHECKED:
        from smpo import preflight

        for finding in preflight.require(recipe, coming):
            display.warn(finding.subject, finding.text)
    for name in coming:
        with stage_named(name), display.stage(name) as progress:
            result, seconds = stages.run_stage(name, recipe, progress)
        display.done(name, result, seconds)


def _add_verb(name: str, explanation: str) -> None:
    def verb(recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False) -> None:
        run_stages([name], recipe, overrides, dry_run=dry_run)

    app.command(name, help=explanation)(verb)


for _name, _explanation in VERBS.items():
    _add_verb(_name, _explanation)


@app.command()
def run(recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Run all stages that the recipe needs, in order. Stages that are complete are left alone."""
    run_stages(None, recipe, overrides, dry_run=dry_run)


@app.command()
def check(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check before a run: model, pairs, prompts, scorers, disk, devices. Trains nothing."""
    from smpo.cli.checking import print_findings
    from smpo.pipeline.config import load_recipe

    print_findings(load_recipe(recipe, overrides or []))


@app.command()
def sweep(
    source: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped sweep (`smpo show`).")],
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; one a GPU, or one a few cores.")] = 1,
    out: Annotated[Path | None, typer.Option(
        parser=place, metavar="PATH", help="Folder of all runs; default runs/NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and do nothing.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Report the finished runs; run nothing.")] = False,
) -> None:
    """Run a grid over recipe keys, rows and seeds; the same command again resumes. Writes its rows and a report."""
    from smpo.sweep.plan import load_sweep

    planned = load_sweep(source, out, overrides or [])
    if dry_run:
        for one in planned.runs():
            print(f"seed {one.seed}  {one.row:32} {one.folder}")
        return
    from smpo.sweep.report import write_sweep_report
    from smpo.sweep.runner import run_sweep, write_rows

    if report_only:
        rows, failed = write_rows(planned, planned.runs()), {}
        print(f"{len(rows)} rows in {planned.rows_path}")
    else:
        with stage_named("sweep"):
            outcome = run_sweep(planned, jobs=jobs, say=lambda line: print(line, flush=True))
        rows, failed = outcome.rows, outcome.failed
        print(f"{len(rows)} rows in {planned.rows_path}, {outcome.computed} computed now")
    if rows:
        print(write_sweep_report(planned.folder / f"{planned.file.name}-report", planned.file, rows))
    if failed:
        raise ProcessError("; ".join(f"{folder}: {why}" for folder, why in failed.items()))


@app.command()
def audit(
    source: Annotated[str, typer.Argument(help="A recipe, or a folder that `smpo pairs` wrote.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    scores: Annotated[Path | None, typer.Option(
        parser=place, metavar="PATH", help="With a folder: the folder that `smpo score` wrote.")] = None,
    labels: Annotated[Path | None, typer.Option(
        parser=place, metavar="PATH", help="With a folder: the folder that `smpo label` wrote.")] = None,
    out: Annotated[Path | None, typer.Option(
        parser=place, metavar="PATH", help="With a folder: where to write; default audit/ beside it.")] = None,
) -> None:
    """Look for faults of a pair set: disagreement, contradictions, near-duplicates, and where the signal is."""
    folder = place(source)
    if not (folder / "manifest.json").exists():
        run_stages(["audit"], source, overrides, dry_run=dry_run)
        return
    out = out or folder.parent / "audit"
    if dry_run:
        print(f"would read {folder} and write {out}")
        return
    from smpo.audit.stage import audit_folder

    with stage_named("audit"), Display().stage("audit") as progress:
        report = audit_folder(folder, out, scores=scores, labels=labels, progress=progress)
    print(f"{report.folder / 'audit.html'}\n{report.text}", end="")


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A recipe or sweep; without one, all shipped are listed.")] = None,
) -> None:
    """List the shipped recipes and sweeps, or print one with its comments and explain it."""
    from smpo.cli import showing

    if name is None:
        print(showing.listing(), end="")
        return
    from smpo.cli import explaining

    if showing.is_sweep(name):
        from smpo.sweep.plan import load_sweep

        text, paragraphs = sweep_path(name).read_text(), [explaining.explanation_of_sweep(load_sweep(name))]
    else:
        from smpo.pipeline.config import load_recipe

        text, paragraphs = showing.recipe_text(name), explaining.explanation(load_recipe(name))
        paragraphs.append(f"`smpo cost {name}` counts its UNet evaluations, memory, disk space and hours.")
    print("\n".join([text, *map(showing.as_comment, paragraphs)]), end="")


@app.command()
def cost(  # noqa: PLR0913 -- one parameter a flag
    recipe: RecipeArgument,
    overrides: Overrides = None,
    utilisation: Annotated[float | None, typer.Option(help="Share of the peak rate; default: the paper's.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="GPUs that train together.")] = 1,
    split: Annotated[str, typer.Option(help="What of it they split: ddp (nothing), fsdp2, fsdp2-offload.")] = "ddp",
    data: Annotated[tuple[int, int] | None, typer.Option(
        metavar="PAIRS PROMPTS", help="Pairs and unique prompts to cache; default: those of the pairs folder.")] = None,
    measured: Annotated[Path | None, typer.Option(
        parser=place, metavar="RUN",
        help="A run of your own, begun or done: hours on its devices, at its rate.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: bytes, FLOPs, hours.")] = False,
) -> None:
    """Estimate UNet evaluations, FLOPs, memory, disk space and hours on named GPUs. Runs nothing."""
    from smpo.cli import costing
    from smpo.cost.estimate import counts_of, estimate
    from smpo.cost.measured import measured_hours
    from smpo.pipeline.config import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    counts = counts_of(resolved, data)
    result = estimate(resolved, counts, utilisation=utilisation, num_processes=processes, split=split)
    render = costing.as_json if as_json else costing.as_text
    print(render(result, measured_hours(resolved, result, measured) if measured else None), end="")


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="Folder of a finished run, or of a diffusers pipeline.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    dtype: Annotated[str, typer.Option(help="float16, which ComfyUI and A1111 use, or float32.")] = "float16",
    title: Annotated[str | None, typer.Option(help="Shown by programs; default: the file's name.")] = None,
) -> None:
    """Write a model as one .safetensors file for ComfyUI, A1111 and diffusers."""
    from smpo.models.export import export as write
    from smpo.models.export import pipeline_of

    precision = cast("Literal['float16', 'float32']", dtype)  # `write` refuses any other text
    configs = write(pipeline_of(source), out, precision=precision, title=title or out.stem)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    if configs is not None:
        print(f"{configs}: configs of its unusual architecture; give this folder as `config` to diffusers")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(
        parser=place, metavar="PATH", help="Folder of the demo's artefacts.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of pairs, training and images.")] = 0,
) -> None:
    """The whole job on the embedded tiny model, in minutes on two CPU cores."""
    from smpo.tiny.demo import write_prompts

    prompts = write_prompts(out, seed=seed)
    overrides = [
        f"paths.workdir={out}", f"seed={seed}", f"sampling.seed={seed + 1}", f"sampling.prompts={prompts.training}",
        f"generation.prompts={prompts.held_out}",
    ]
    run_stages(None, "tiny-demo", overrides, dry_run=False)
    print(f"\nOpen {out / 'report' / 'report.html'} in a browser.")
