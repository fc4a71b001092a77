"""One function per command: it opens the artefacts of the recipe, calls the stage and returns its result in one line.

Every stage may be run again. A complete artefact is left alone, an unfinished one is continued, and one that was made
from other settings or inputs is refused.
"""

import importlib.metadata
import json
import platform
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smpo import __version__
from smpo.audit.stage import audit_folder
from smpo.core.artefacts import is_finished
from smpo.core.errors import ConfigError
from smpo.core.locks import sole_writer
from smpo.core.names import BASE
from smpo.core.processes import this_process, wait_for_all
from smpo.data.pair_set import PairSet
from smpo.evaluation.compare import Comparison
from smpo.evaluation.image_sets import categories_of, compare_evaluated, score_and_measure
from smpo.evaluation.implicit_accuracy import implicit_accuracy
from smpo.evaluation.scores import ImageScores
from smpo.labels import LABELS
from smpo.maths.smoothing import pair_weight
from smpo.models import FAMILIES
from smpo.models.package_data import resolve_source
from smpo.models.sources import pinned
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.pipeline.config import Recipe, dump_recipe, settings_text
from smpo.pipeline.sections import PromptedOptions
from smpo.preparation import label, pairs, score
from smpo.preparation.cache import LatentCache, cache_pairs, check_encoders
from smpo.preparation.sampling import PAIRS_FILE, check_sampled, sample_pairs
from smpo.prompts import Prompt, read_prompts
from smpo.prompts.lengths import cut_prompts
from smpo.report.image_rows import image_rows
from smpo.report.run_report import ReportContent, write_report
from smpo.report.tables import paper_tables
from smpo.rewards import SCORERS
from smpo.sampling.image_set import ImageSet
from smpo.sampling.store import generate_shared
from smpo.training.implicit import HeldOut, measure_held_out, read_held_out
from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.preference_run import PreferenceRun
from smpo.training.result import metrics_of
from smpo.training.sources.pairs import TrainingPairs
from smpo.training.trainer import train as train_policy

Progress = Callable[..., None]
"""(done, total) or (what, done, total), for a progress bar."""

IMPLICIT = "implicit"  # folder of the margins on held-out pairs, in that of a set's scores
TIMES = "stages.jsonl"
MIB = 1 / 1024  # ru_maxrss counts KiB


def sample(recipe: Recipe, progress: Progress) -> str:
    """Generate two images of each prompt with the model itself, as a pair set without labels."""
    if recipe.sampling is None:
        raise ConfigError("sampling: the recipe has no such section; add it, or give data.source")
    prompts, out = prompts_of(recipe.sampling), recipe.folder("sample")
    report = sample_pairs(base_model(recipe), prompts, out, options=recipe.sampling.options, progress=progress)
    return f"{report.num_images // 2} pairs in {out}, {report.num_made} images generated{report.black}"


def check_pairs(recipe: Recipe, progress: Progress) -> str:
    """Check every row of the source and write the index of the sound pairs."""
    if recipe.data.source is None:
        check_sampled(recipe.folder("sample"))
    source = recipe.data.source or str(recipe.folder("sample") / PAIRS_FILE)
    report = pairs.prepare_pairs(source, recipe.folder("pairs"), options=recipe.data.options, progress=progress)
    captions = PairSet.open(report.folder).captions
    return pairs.describe(report) + cut_prompts(captions, base_model(recipe))


def score_images(recipe: Recipe, progress: Progress) -> str:
    """Score both images of every pair with the recipe's reward models."""
    if not recipe.pair_scorers:
        raise ConfigError("scorer: the recipe has no such section; nothing to score with")
    scorers = {name: SCORERS.build(settings) for name, settings in recipe.pair_scorers.items()}
    pair_set, out = PairSet.open(recipe.folder("pairs")), recipe.folder("score")
    return score.describe(score.score_pairs(pair_set, scorers, out, options=recipe.scoring, progress=progress))


def label_winners(recipe: Recipe, progress: Progress) -> str:
    """Name each pair's winner and its smoothed probability."""
    pair_set, member = PairSet.open(recipe.folder("pairs")), LABELS.build(recipe.labels)
    names = member.tables(tuple(recipe.pair_scorers))
    scores = {name: score.ScoreTable.open(recipe.folder("score") / name) for name in names}
    return label.describe(label.label_pairs(pair_set, scores, member, recipe.folder("label")))


def cache_latents(recipe: Recipe, progress: Progress) -> str:
    """Encode every image and prompt once."""
    pair_set, family = PairSet.open(recipe.folder("pairs")), FAMILIES.build(recipe.model)
    out = recipe.folder("cache")
    report = cache_pairs(pair_set, family, out, options=recipe.cache, progress=progress)
    size = f"{report.pairs} pairs x 2 images x {report.views} views and {report.prompts} prompts"
    return f"{size} in {out}, {report.megabytes:.1f} MB{report.long_prompts.describe()}"


def invert(recipe: Recipe, progress: Progress) -> str:
    """Noise the examples of the training, and take the reference's errors of them, once."""
    if recipe.training.cached_inversion_epochs is None:
        raise ConfigError("training.cached_inversion_epochs: not set, so training inverts by itself; set it, or go on")
    out = recipe.folder("invert")
    report = cache_inversions(run_without_cache(recipe), out, progress=progress)
    how = f", {report.evaluations:.4g} UNet evaluations each" if report.evaluations else ", already done"
    return f"{report.examples} examples in {out}, {report.megabytes:.1f} MB{how}"


def train(recipe: Recipe, progress: Progress) -> str:
    """Train the policy; the same call again resumes."""

    def show(metrics: dict[str, Any]) -> None:
        shown = {"loss": "loss", "implicit_accuracy": "acc", "grad_norm": "grad", "examples_per_s": "pairs/s"}
        text = "  ".join(f"{name} {metrics[key]:.3g}" for key, name in shown.items() if key in metrics)
        progress(text, metrics["step"], recipe.training.steps)

    run = training_run(recipe)
    report = train_policy(run, report=show)
    how = f", resumed from step {report.resumed_from}" if report.resumed_from and not report.skipped else ""
    return f"{report.steps} steps{how}; model in {run.model_folder}"


def generate(recipe: Recipe, progress: Progress) -> str:
    """Generate images of the prompts with the base and the trained model, from the same seeds."""
    prompts, models, made, black = prompts_of(recipe.generation), compared_models(recipe), 0, 0
    for name, model in models.items():
        report = generate_shared(
            model, prompts, recipe.folder("generate") / name, store=recipe.store, options=recipe.generation.options,
            progress=partial(progress, name),
        )
        made, black = made + report.num_made, black + report.num_black
    dark = f"; {black} of the images are entirely black" if black else ""
    cut = cut_prompts([prompt.text for prompt in prompts], base_model(recipe))
    return f"{len(models)} sets of {report.num_images} images in {recipe.store}, {made} generated{dark}{cut}"


def evaluate(recipe: Recipe, progress: Progress) -> str:
    """Score every image set and compare them with the base."""
    score_sets(recipe, progress)
    return summary_of(comparison(recipe), recipe.name)


def score_sets(recipe: Recipe, progress: Progress) -> None:
    """Score and measure every image set, and take the implicit margins if the recipe names held-out pairs."""
    scorers = {name: SCORERS.build(settings) for name, settings in recipe.evaluation.scorers.items()}
    for name, images in image_sets(recipe).items():
        score_and_measure(
            images, scorers, recipe.folder("evaluate") / name, store=recipe.store, options=recipe.evaluation,
            progress=_of_set(name, progress),
        )
    measure_implicit(recipe, progress)


def _of_set(name: str, progress: Progress) -> Callable[[str, int, int], None]:
    """`progress` that names the image set."""
    return lambda what, done, total: progress(f"{name}, {what}", done, total)


def report(recipe: Recipe, progress: Progress) -> str:
    """Write report.html, report.md and the figures."""
    compared, sets = comparison(recipe), image_sets(recipe)
    opened = {name: (images, ImageScores.open(recipe.folder("evaluate") / name)) for name, images in sets.items()}
    published, name = recipe.report.published, "held-out prompts"
    beside = {name: published.named(recipe.name)} if published else {}
    table = label.LabelTable.open(recipe.folder("label"))
    gamma = recipe.objective.get("gamma", 1.0)
    content = ReportContent(
        title=f"{recipe.name}: before and after alignment", comparison=compared, model=recipe.name,
        facts=facts(recipe), examples=image_rows({name: opened[name] for name in (BASE, recipe.name)}),
        metrics=metrics_of(recipe.folder("train")), p_winner=table.p_winner.tolist(),
        weight=pair_weight(table.p_winner, gamma=gamma).tolist(), recipe=dump_recipe(recipe),
        tables=paper_tables({name: compared}, recipe.name, published=beside),
        categories=categories_of(sets[BASE]), sets=opened if recipe.report.browser else {},
    )
    return f"{write_report(recipe.folder('report'), content=content)}"


def audit(recipe: Recipe, progress: Progress) -> str:
    """Look for faults of the pairs, with all scores and labels that exist."""
    report = audit_folder(
        recipe.folder("pairs"), recipe.folder("audit"), scores=recipe.folder("score"), labels=recipe.folder("label"),
        gamma=recipe.objective.get("gamma", 1.0), progress=progress,
    )
    cut = cut_prompts(PairSet.open(recipe.folder("pairs")).captions, base_model(recipe))
    return f"{report.folder / 'audit.html'}{cut}\n{report.text}"


STAGES: dict[str, Callable[[Recipe, Progress], str]] = {
    "sample": sample, "pairs": check_pairs, "score": score_images, "label": label_winners, "cache": cache_latents,
    "invert": invert, "train": train, "generate": generate, "evaluate": evaluate, "report": report,
}
ASIDE = {"audit": audit}  # verbs that no later stage needs: `smpo run` leaves them out
SHARED = ("sample", "score", "invert", "train", "generate", "evaluate")  # stages that several processes do together


def stages_of(recipe: Recipe) -> list[str]:
    """The verbs that a whole run of `recipe` needs, in order."""
    unneeded = set()
    if recipe.sampling is None:
        unneeded.add("sample")
    if not LABELS.build(recipe.labels).needs_scores:
        unneeded.add("score")
    if recipe.training.cached_inversion_epochs is None:
        unneeded.add("invert")
    return [name for name in STAGES if name not in unneeded]


def artefacts_of(recipe: Recipe, stage: str) -> list[tuple[Path, str]]:
    """The artefacts that `stage` makes and that are kept, each with the stage that its manifest names.

    Measurements and reports are made anew at every call, and are none.
    """
    out = recipe.folder(stage)
    if stage in ("evaluate", "report"):
        return []
    if stage == "score":
        return [(out / name, stage) for name in recipe.pair_scorers]
    if stage == "generate":
        return [(out / name, stage) for name in compared_models(recipe)]
    return [(out, "generate" if stage == "sample" else stage)]  # a sample is a set of images, too


def is_complete(recipe: Recipe, stage: str) -> bool:
    """Whether all that `stage` makes is there and finished."""
    artefacts = artefacts_of(recipe, stage)
    return bool(artefacts) and all(is_finished(folder, stage=made_by) for folder, made_by in artefacts)


def run_stage(name: str, recipe: Recipe, progress: Progress) -> tuple[str, float]:
    """The result of stage `name` in one line, and its duration in s; the work folder records duration and peak memory.

    Processes that were started together share a stage of SHARED; any other is the main process's, and the others wait.
    """
    started, is_main = time.perf_counter(), this_process().is_main
    with ExitStack() as locks:
        if is_main and name != "train":  # which locks its folder itself
            for place in places_of(name, recipe):
                locks.enter_context(sole_writer(place))
        result = {**STAGES, **ASIDE}[name](recipe, progress) if is_main or name in SHARED else ""
    wait_for_all(f"finish `smpo {name}`")
    seconds = time.perf_counter() - started
    if is_main:
        _note_cost(name, recipe, seconds)
    return result, seconds


def places_of(stage: str, recipe: Recipe) -> list[Path]:
    """The folders that a stage writes into; a score table is a place of its own, for recipes may share the others."""
    folder = recipe.folder(stage)
    return [folder / name for name in sorted(recipe.pair_scorers)] if stage == "score" else [folder]


def _note_cost(name: str, recipe: Recipe, seconds: float) -> None:
    recipe.workdir.mkdir(parents=True, exist_ok=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB
    with open(recipe.workdir / TIMES, "a") as file:
        file.write(json.dumps({"stage": name, "seconds": round(seconds, 2), "peak_memory_mib": round(peak)}) + "\n")


def training_run(recipe: Recipe) -> PreferenceRun:
    """The resolved training run over the recipe's artefacts, with its cached inversions where it has them."""
    run = run_without_cache(recipe)
    if recipe.training.cached_inversion_epochs is None:
        return run
    return with_cached_inversions(run, recipe.folder("invert"))


def run_without_cache(recipe: Recipe) -> PreferenceRun:
    """The training run but for its cached inversions."""
    pair_set, labels = PairSet.open(recipe.folder("pairs")), label.LabelTable.open(recipe.folder("label"))
    cache = matching_cache(recipe, recipe.folder("cache"))
    return PreferenceRun(
        name=recipe.name, folder=recipe.folder("train"), seed=recipe.seed, family=FAMILIES.build(recipe.model),
        init_weights=recipe.init_weights, reference_weights=recipe.reference_weights,
        noising=NOISINGS.build(recipe.noising), objective=OBJECTIVES.build(recipe.objective), options=recipe.training,
        pairs=TrainingPairs(pair_set, labels, cache), cache=cache, inputs={"pairs": pair_set.fingerprint, "label":
        labels.fingerprint, "cache": cache.fingerprint}, settings={"noising": recipe.noising, "objective":
        recipe.objective}, recipe_yaml=dump_recipe(recipe),
    )


def prompts_of(section: PromptedOptions) -> list[Prompt]:
    """The prompts that a `sampling` or `generation` section chooses."""
    prompts = resolve_source(section.prompts) if isinstance(section.prompts, str) else section.prompts
    return read_prompts(prompts, **section.choices)


def matching_cache(recipe: Recipe, folder: Path) -> LatentCache:
    """The cache in `folder`; StaleError unless it was made with the encoders of the recipe's model."""
    cache = LatentCache(folder)
    check_encoders(cache, FAMILIES.build(recipe.model))
    return cache


def compared_models(recipe: Recipe) -> dict[str, str]:
    """Name -> pipeline of every image set: the base, the trained model, and the recipe's further ones."""
    trained = str(recipe.folder("train") / "model")
    return {BASE: base_model(recipe), recipe.name: trained, **recipe.generation.models}


def base_model(recipe: Recipe) -> str:
    """The source of the base model, with its revision in it."""
    return pinned(recipe.model["source"], recipe.model.get("revision"))


def comparison(recipe: Recipe) -> Comparison:
    """All evaluated sets against the base; the scorer that made the labels is the training reward."""
    scorers = recipe.evaluation.scorers
    reward = next((name for name, settings in scorers.items() if settings == recipe.scorer), None)
    out = recipe.folder("evaluate")
    compared = compare_evaluated(
        image_sets(recipe), out, baseline=BASE, training_reward=reward, protocol=recipe.evaluation.protocol
    )
    if recipe.evaluation.held_out is None:
        return compared
    trained = [name for name in compared.models if name != BASE]
    margins = {name: read_held_out(out / name / IMPLICIT) for name in trained}
    return replace(compared, implicit=tuple(
        implicit_accuracy(name, values, timesteps.tolist(), prompts.tolist())
        for name, (values, timesteps, prompts) in margins.items()
    ))


def image_sets(recipe: Recipe) -> dict[str, ImageSet]:
    """The images of every compared model."""
    return {name: ImageSet.open(recipe.folder("generate") / name) for name in compared_models(recipe)}


def measure_implicit(recipe: Recipe, progress: Progress) -> None:
    """Take the implicit margins of every model but the base, if the recipe names held-out pairs."""
    held_out = recipe.evaluation.held_out
    if held_out is None:
        return
    pair_set, labels = PairSet.open(Path(held_out.pairs)), label.LabelTable.open(Path(held_out.label))
    cache = matching_cache(recipe, Path(held_out.cache))
    held = HeldOut(
        TrainingPairs(pair_set, labels, cache), cache, FAMILIES.build(recipe.model),
        {"pairs": pair_set.fingerprint, "label": labels.fingerprint, "cache": cache.fingerprint},
    )
    for name, model in compared_models(recipe).items():
        if name != BASE:
            measure_held_out(
                held, recipe.folder("evaluate") / name / IMPLICIT, policy=model, reference=recipe.reference_weights,
                options=held_out.implicit,
                progress=partial(progress, f"{name}, held-out pairs"),
            )


def summary_of(compared: Comparison, model: str) -> str:
    """Medians and win-rates of `model` against the base in one line."""
    parts = []
    for scorer in compared.units:
        before, after = (compared.summaries[name][scorer].mean.value for name in (compared.baseline, model))
        won = compared.pairing(model, scorer).win_rate
        parts.append(f"{scorer} mean {before:.3f} -> {after:.3f}, wins {won.rate:.1%} [{won.low:.1%}, {won.high:.1%}]")
    return "; ".join(parts)


def facts(recipe: Recipe) -> dict[str, dict[str, str]]:
    """The facts in the report: the method, the duration of each stage, the peak memory and the software."""
    times = [json.loads(line) for line in _lines(recipe.workdir / TIMES)]
    longest: dict[str, float] = {}
    for entry in times:
        longest[entry["stage"]] = max(entry["seconds"], longest.get(entry["stage"], 0))
    packages = ("torch", "diffusers", "transformers", "accelerate")
    training, seen = recipe.training, OBJECTIVES.build(recipe.objective).unit
    return {
        "Method": {
            "objective": settings_text(recipe.objective), "noising": settings_text(recipe.noising),
            "labels": settings_text(recipe.labels),
            "training": f"{training.steps} steps of {training.batch_size} {seen}, lr {training.optimizer.lr:g}",
        },
        "Time (s)": {stage: f"{seconds:.1f}" for stage, seconds in longest.items()},
        "Memory": {"peak": f"{max((entry['peak_memory_mib'] for entry in times), default=0)} MiB"},
        "Versions": {
            "smpo": __version__, "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        },
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
