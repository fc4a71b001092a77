"""What happens to folders over the months: files exchanged, bases and images changed, folders deleted or filled."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from tests.fuzz.artefacts import MORE, RUN, changed_case, third_step, three_steps
from tests.fuzz.case import Accepted, Case, Either, Expectation, Made, Refused
from tests.fuzz.running import Result, run
from tests.fuzz.world import World


def fixed() -> list[Case]:
    """All of them."""
    return [*_swaps(), *_sources(), *_folders()]


def _swaps() -> Iterator[Case]:
    """Sound files in the wrong place."""

    def swap(one: str, other: str) -> Callable[[Path], object]:
        def change(cwd: Path) -> None:
            first, second = cwd / RUN / one, cwd / RUN / other
            held = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(held)

        return change

    latents = "cache/latents/"
    pairs = {
        ("cache", f"{latents}mean-00000.npy", f"{latents}std-00000.npy"): ("train", MORE),
        ("evaluate", "evaluate/fz/manifest.json", "evaluate/base/manifest.json"): ("report", []),
        ("pairs", "pairs/manifest.json", "label/manifest.json"): ("label", []),
        ("images", "generate/fz/manifest.json", "generate/base/manifest.json"): ("evaluate", []),
        ("pairs", "pairs/pairs.parquet", "label/labels.parquet"): ("label", []),
    }
    for (name, one, other), (stage, overrides) in pairs.items():
        yield changed_case(
            f"{one} and {other} exchanged", swap(one, other), stage, Refused(((name, "manifest"),)), overrides
        )
    yield changed_case("labels turned round", _turned_labels, "train", Refused(("label",)), MORE)
    yield changed_case("scores shuffled", _shuffled_scores, "label", Refused(("score",)))
    yield changed_case(
        "a cache block of fewer pairs", lambda cwd: _array(cwd, lambda a: a[:-1]), "train", Refused(("cache",)), MORE
    )
    yield changed_case(
        "a cache block of another type",
        lambda cwd: _array(cwd, lambda a: a.astype(np.float64)),
        "train",
        Refused(("cache",)),
        MORE,
    )
    yield changed_case(
        "a cache block with NaN",
        lambda cwd: _array(cwd, lambda a: a * np.nan),
        "train",
        Refused(("cache",)),
        MORE,
        "https://github.com/Akegarasu/lora-scripts/issues/548",
    )
    yield changed_case(
        "a cache block that is a pickle",
        lambda cwd: np.save(cwd / RUN / latents / "mean-00000.npy", np.array([{}], dtype=object)),
        "train",
        Refused(("cache",)),
        MORE,
    )
    yield changed_case(
        "a cache block too many",
        lambda cwd: shutil.copy(cwd / RUN / latents / "mean-00000.npy", cwd / RUN / latents / "mean-00001.npy"),
        "train",
        Either((Accepted(third_step), Refused(("cache",)))),
        MORE,
    )


def _array(cwd: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = cwd / RUN / "cache/latents/mean-00000.npy"
    np.save(path, change(np.load(path)))


def _turned_labels(cwd: Path) -> None:
    path = cwd / RUN / "label/labels.parquet"
    table = pq.read_table(path)
    turned = [1 - winner for winner in table["winner"].to_pylist()]
    place = table.schema.get_field_index("winner")
    pq.write_table(table.set_column(place, table.schema.field(place), [turned]), path)


def _shuffled_scores(cwd: Path) -> None:
    path = cwd / RUN / "score/pickscore/scores.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), path)


def _sources() -> Iterator[Case]:
    """What a run was made from changes behind its back; or only seems to."""
    for part, weights in (
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ):
        yield _moved_base(
            f"base's {part} is other weights",
            lambda model, part=part, weights=weights: _shifted(model / part / weights),
            Refused(((part, "model", "weights"),)),
        )
    yield _moved_base(
        "base's schedule is another",
        lambda model: _edit(model / "scheduler/scheduler_config.json", beta_end=0.02),
        Refused((("scheduler", "model", "beta_end"),)),
    )
    yield _moved_base(
        "base's VAE scales otherwise",
        lambda model: _edit(model / "vae/config.json", scaling_factor=0.4),
        Refused((("vae", "model", "scaling"),)),
    )
    yield _moved_base(
        "base was touched",
        lambda model: [os.utime(path, (1, 1)) for path in model.rglob("*") if path.is_file()],
        Accepted(_third_step_here),
    )
    yield _moved_base(
        "base was copied anew",
        lambda model: (shutil.copytree(model, f"{model}2"), shutil.rmtree(model), os.rename(f"{model}2", model)),
        Accepted(_third_step_here),
    )
    yield _moved_base("base is gone", lambda model: shutil.rmtree(model), Refused(("model",)))
    yield from _moved_pairs()


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _shifted(path: Path) -> None:
    """Other weights in a file of the same length."""
    save_file(
        {name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()},
        path,
        {"format": "pt"},
    )


def _moved_base(name: str, change: Callable[[Path], object], expect: Expectation) -> Case:
    """A run of one step on a base of its own, which then changes before the next step."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        model, given = (
            world.copy_of_model(cwd / "base"),
            ["paths.cache=own-cache", "paths.train=own-train", "model.source=base"],
        )
        for stage, steps in (("cache", 2), ("train", 2)):
            result = run([stage, "recipe.yaml", *given, f"training.steps={steps}"], cwd, home=cwd.parent / "home")
            if result.code:
                raise RuntimeError(f"smpo {stage} of an undamaged run failed: {result.crash or result.err}")
        change(model)
        return [["train", "recipe.yaml", *given, *MORE]]

    return Case(f"{name}, then train", make, expect, limit_s=30)


def _third_step_here(made: Made, results: Sequence[Result]) -> list[str]:
    found, right = (
        load_file(made.cwd / "own-train/model/unet/diffusion_pytorch_model.safetensors"),
        three_steps(made.world),
    )
    return (
        []
        if all(torch.equal(found[name], right[name]) for name in right)
        else ["trained other weights than without the change"]
    )


def _moved_pairs() -> Iterator[Case]:
    """Images and lines of the pair set, after `smpo pairs`."""

    def pair_case(name: str, change: Callable[[Path], object], expect: Expectation, stage: str = "cache") -> Case:
        def make(cwd: Path, world: World) -> list[list[str]]:
            world.copy_of_finished(cwd)
            shutil.copytree(world.pairs.parent, cwd / "own")
            given = ["data.source=own/pairs.jsonl", "paths.workdir=new"]
            if run(["pairs", "recipe.yaml", *given], cwd, home=cwd.parent / "home").code:
                raise RuntimeError("smpo pairs of sound pairs failed")
            change(cwd / "own")
            return [[stage, "recipe.yaml", *given]]

        return Case(
            f"{name}, then {stage}", make, expect, "https://github.com/shootthesound/Fizgig/issues/27", limit_s=30
        )

    def other_pixels(folder: Path) -> None:
        data = bytearray((folder / "0-chosen.png").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "0-chosen.png").write_bytes(data)

    changed = Refused((("changed", "0-chosen"),))
    for stage in ("cache", "score"):
        yield pair_case("an image is another of the same length", other_pixels, changed, stage)
        yield pair_case(
            "an image is another", lambda d: shutil.copy(d / "1-chosen.png", d / "0-chosen.png"), changed, stage
        )
        yield pair_case(
            "an image is gone",
            lambda d: (d / "0-chosen.png").unlink(),
            Refused((("changed", "0-chosen", "missing"),)),
            stage,
        )
        yield pair_case(
            "winner and loser are exchanged",
            lambda d: [
                os.rename(d / a, d / b)
                for a, b in (("0-chosen.png", "x"), ("0-rejected.png", "0-chosen.png"), ("x", "0-rejected.png"))
            ],
            changed,
            stage,
        )
    for stage in ("pairs", "cache", "score"):
        yield pair_case(
            "images were touched", lambda d: [os.utime(path, (1, 1)) for path in d.iterdir()], Accepted(), stage
        )
        yield pair_case(
            "images were copied anew",
            lambda d: (shutil.copytree(d, f"{d}2"), shutil.rmtree(d), os.rename(f"{d}2", d)),
            Accepted(),
            stage,
        )
    yield pair_case(
        "the prompts changed", lambda d: _replace(d / "pairs.jsonl", "thing 0", "thing X"), Refused(("changed",))
    )
    yield pair_case(
        "the prompts changed",
        lambda d: _replace(d / "pairs.jsonl", "thing 0", "thing X"),
        Refused((("pairs", "delete"),)),
        "pairs",
    )
    yield pair_case(
        "a line was added",
        lambda d: _replace(
            d / "pairs.jsonl", "{", '{"prompt": "n", "chosen": "0-chosen.png", "rejected": "1-rejected.png"}\n{', 1
        ),
        Refused((("pairs", "changed"),)),
    )
    yield pair_case("the file is gone", lambda d: (d / "pairs.jsonl").unlink(), Refused((("pairs.jsonl", "own"),)))


def _replace(path: Path, old: str, new: str, count: int = -1) -> None:
    path.write_text(path.read_text().replace(old, new, count))


def _other_images(cwd: Path, world: World) -> list[list[str]]:
    """Images drawn with another seed, and the scores of the old ones."""
    world.copy_of_finished(cwd)
    given = ["paths.generate=other", "generation.seed=9"]
    return [[stage, "recipe.yaml", *given] for stage in ("generate", "report")]


def _folders() -> Iterator[Case]:
    """Folders that are no folders, or somebody else's."""
    yield Case("a report of new images with old scores", _other_images, Refused((("images", "evaluate"),)))
    stages = {
        "pairs": "pairs",
        "label": "label",
        "cache": "cache",
        "train": "train",
        "generate": "generate/fz",
        "evaluate": "evaluate/fz",
        "report": "report",
    }
    for stage, place in stages.items():

        def to_file(cwd: Path, place: str = place) -> None:
            shutil.rmtree(cwd / RUN / place)
            (cwd / RUN / place).write_text("x")

        def foreign(cwd: Path, place: str = place) -> None:
            shutil.rmtree(cwd / RUN / place)
            (cwd / RUN / place).mkdir()
            (cwd / RUN / place / "mine.txt").write_text("x")

        yield changed_case(f"{place} is a file", to_file, stage, Refused((place,)))
        if stage != "report":
            yield changed_case(f"{place} holds others' files", foreign, stage, Refused((place,)))
    for place in ("pairs", "label", "cache", "train/model", "generate/fz", "evaluate/fz"):
        stage = {
            "pairs": "label",
            "label": "train",
            "cache": "train",
            "train/model": "generate",
            "generate/fz": "evaluate",
            "evaluate/fz": "report",
        }[place]
        change = lambda cwd, place=place: shutil.rmtree(cwd / RUN / place)  # noqa: E731
        yield changed_case(
            f"{place} is gone", change, stage, Refused((place.partition("/")[0],)), MORE if stage == "train" else []
        )
