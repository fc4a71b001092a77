"""Damage to a finished run: every file of it, in every way, and whatever else happens to folders over the months.

What is read must be the bytes that were written, or the stage says which file is not; a checkpoint may instead be
passed over for the one before, and what nobody depends on (logs, cards) may change as it likes.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from tests.data.pictures import png
from tests.fuzz.case import Accepted, Case, Either, Expectation, Made, Refused
from tests.fuzz.running import Result, run
from tests.fuzz.world import World

Damage = Callable[[bytes, random.Random], bytes | None]
"""A file's bytes -> what is left of them; None where the file is gone."""

RUN = "runs/fz"
MORE = ["training.steps=3"]  # one step more: the cache is read, the newest checkpoint is taken up
URL = "https://github.com/bghira/SimpleTuner/issues/2613"
CHANGED = "runs/changed"


def _flip(data: bytes, rng: random.Random) -> bytes:
    """One bit turned."""
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


DAMAGES: dict[str, Damage] = {
    "gone": lambda data, rng: None,
    "empty": lambda data, rng: b"",
    "halved": lambda data, rng: data[: len(data) // 2],
    "a byte short": lambda data, rng: data[:-1],
    "a byte long": lambda data, rng: data + b"\0",
    "of zeros": lambda data, rng: bytes(len(data)),
    "with a bit turned": _flip,
    "of noise": lambda data, rng: rng.randbytes(len(data)),
}
FILES: dict[
    str, tuple[str, list[str], tuple[str, ...]]
] = {  # file -> (stage that reads it, overrides, names one of which the error has)
    "pairs/pairs.parquet": ("label", [], ("pairs",)),
    "pairs/source.json": ("cache", ["paths.cache=new"], ("source.json", "pairs")),
    "label/labels.parquet": ("train", MORE, ("label",)),
    "score/pickscore/scores.parquet": ("label", [], ("scores.parquet", "score")),
    "cache/latents/mean-00000.npy": ("train", MORE, ("cache",)),
    "cache/latents/std-00000.npy": ("train", MORE, ("cache",)),
    "cache/latents/size-00000.npy": ("train", MORE, ("cache",)),
    "cache/prompts/hidden-00000.npy": ("train", MORE, ("cache",)),
    "train/model/unet/diffusion_pytorch_model.safetensors": ("generate", [], ("unet", "weights", "model")),
    "train/model/unet/config.json": ("generate", [], ("unet", "model", "config")),
    "train/model/vae/diffusion_pytorch_model.safetensors": ("generate", [], ("vae", "weights", "model")),
    "train/model/model_index.json": ("generate", [], ("model_index", "model")),
    "generate/fz/images.jsonl": ("evaluate", [], ("images.jsonl", "generate")),
    "generate/base/images.jsonl": ("evaluate", [], ("images.jsonl", "generate")),
}
MANIFESTS: dict[str, tuple[str, list[str]]] = {  # artefact -> stage that reads its manifest, with overrides
    "pairs": ("label", []),
    "score/pickscore": ("label", []),
    "label": ("train", MORE),
    "cache": ("train", MORE),
    "train": ("train", MORE),
    "generate/fz": ("evaluate", []),
    "generate/base": ("evaluate", []),
    "evaluate/fz": ("report", []),
    "evaluate/base": ("report", []),
}
CHECKPOINT = "train/checkpoints/step-00000002"
IDLE: dict[str, str] = {  # file that no result depends on -> the stage that must not mind
    "pairs/dropped.jsonl": "label",
    "label/dropped.jsonl": "train",
    "train/model/README.md": "generate",
    "train/recipe.yaml": "train",
    "stages.jsonl": "train",
}


def damage_case(
    file: str, damage: str, stage: str, overrides: Sequence[str], expect: Expectation, seed: int = 0
) -> Case:
    """A stage of the finished run, one file of which (relative to runs/fz, or a pattern in it) is damaged."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        path = sorted((cwd / RUN).glob(file))[0]
        left = DAMAGES[damage](path.read_bytes(), random.Random(f"{file}/{seed}"))
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        return [[stage, "recipe.yaml", *overrides]]

    return Case(f"{file} {damage}, {seed}, {stage}", make, expect, URL if "checkpoint" in file else "", limit_s=30)


def changed_case(
    name: str,
    change: Callable[[Path], object],
    stage: str,
    expect: Expectation,
    overrides: Sequence[str] = (),
    url: str = "",
) -> Case:
    """A stage of the finished run after `change` of the working folder."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        change(cwd)
        return [[stage, "recipe.yaml", *overrides]]

    return Case(f"{name}, then {stage}", make, expect, url, limit_s=30)


def fixed() -> list[Case]:
    """All of them."""
    return [
        *_files(),
        *_manifests(),
        *_checkpoints(),
        *_idle(),
        *_images(),
        *_tables(),
        *_swaps(),
        *_sources(),
        *_folders(),
    ]


def _files() -> Iterator[Case]:
    for file, (stage, overrides, names) in FILES.items():
        for damage in DAMAGES:
            yield damage_case(file, damage, stage, overrides, Refused((names,)))


def _manifests() -> Iterator[Case]:
    for artefact, (stage, overrides) in MANIFESTS.items():
        file = f"{artefact}/manifest.json"
        for damage in DAMAGES:
            # a turned bit may hit a blank or a note that nothing depends on, and the last byte is a line's end
            refused = Refused(((artefact.partition("/")[0], "manifest"),))
            harmless = damage in ("with a bit turned", "a byte short")
            yield damage_case(file, damage, stage, overrides, Either((refused, Accepted())) if harmless else refused)
        for text in (
            "{}",
            "[]",
            "null",
            '{"complete": true}',
            '{"stage": 5, "fingerprint": [], "complete": "yes", "results": 3}',
        ):
            change = lambda cwd, file=file, text=text: (cwd / RUN / file).write_text(text)  # noqa: E731
            yield changed_case(
                f"{file} is {text[:20]}", change, stage, Refused(((artefact.partition("/")[0], "manifest"),)), overrides
            )


def _checkpoints() -> Iterator[Case]:
    for file in ("unet.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        for damage in DAMAGES:
            yield damage_case(f"{CHECKPOINT}/{file}", damage, "train", MORE, Accepted(_third_step))
    texts = (
        "{}",
        "[]",
        "null",
        '{"unet.safetensors": {}}',
        '{"state.json": {"bytes": 1, "sha256": ""}}',
        '{"../x": {"bytes": 0, "sha256": "e3b0"}}',
    )
    for text in texts:
        yield changed_case(
            f"checkpoint's manifest is {text[:20]}",
            lambda cwd, text=text: (cwd / RUN / CHECKPOINT / "manifest.json").write_text(text),
            "train",
            Accepted(_third_step),
            MORE,
            URL,
        )
    for name, change in {
        "both checkpoints are gone": lambda cwd: shutil.rmtree(cwd / RUN / "train/checkpoints"),
        "the newest checkpoint is gone": lambda cwd: shutil.rmtree(cwd / RUN / CHECKPOINT),
        "the newest checkpoint is empty": lambda cwd: [path.unlink() for path in (cwd / RUN / CHECKPOINT).iterdir()],
        "both checkpoints are damaged": lambda cwd: [
            path.write_bytes(b"") for path in (cwd / RUN / "train/checkpoints").glob("*/unet.safetensors")
        ],
        "a checkpoint of the future": lambda cwd: (cwd / RUN / "train/checkpoints/step-99999999").mkdir(),
        "a checkpoint that is a file": lambda cwd: (cwd / RUN / "train/checkpoints/step-00000009").write_text("x"),
        "half-written leftovers": lambda cwd: (cwd / RUN / "train/checkpoints/.tmp-00000003").mkdir(),
        "other people's files": lambda cwd: (cwd / RUN / "train/checkpoints/notes.txt").write_text("x"),
        "the log is cut in a line": lambda cwd: _cut(cwd / RUN / "train/metrics.jsonl"),
        "the log is gone": lambda cwd: (cwd / RUN / "train/metrics.jsonl").unlink(),
        "the log is binary": lambda cwd: (cwd / RUN / "train/metrics.jsonl").write_bytes(b"\xff\x00\n"),
    }.items():
        yield changed_case(name, change, "train", Accepted(_third_step), MORE, URL)
    yield changed_case(
        "a checkpoint from another run",
        _foreign_checkpoint,
        "train",
        Either((Accepted(_third_step), Refused((("checkpoint", "train"),)))),
        MORE,
    )


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _foreign_checkpoint(cwd: Path) -> None:
    """Weights of equal shapes with a manifest that fits them, as copied from another run."""
    folder = cwd / RUN / CHECKPOINT
    tensors = load_file(folder / "unet.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "unet.safetensors")


def _third_step(made: Made, results: Sequence[Result]) -> list[str]:
    """The weights are those of three undamaged steps."""
    found = load_file(made.cwd / RUN / "train/model/unet/diffusion_pytorch_model.safetensors")
    right = three_steps(made.world)
    wrong = [name for name in right if not torch.equal(found[name], right[name])]
    return [f"trained other weights than without the damage: {wrong[0]} and {len(wrong) - 1} more"] if wrong else []


def three_steps(world: World) -> dict[str, torch.Tensor]:
    """The weights after three steps of the undamaged run; trained once."""
    folder = world.root / "three"
    if not folder.exists():
        world.copy_of_finished(folder)
        result = run(["train", "recipe.yaml", *MORE], folder, home=world.root)
        if result.code:
            raise RuntimeError(f"three undamaged steps failed: {result.crash or result.err}")
    return load_file(folder / RUN / "train/model/unet/diffusion_pytorch_model.safetensors")


def _idle() -> Iterator[Case]:
    for file, stage in IDLE.items():
        for damage in ("gone", "empty", "halved", "of noise"):
            overrides = MORE if stage == "train" else []
            yield damage_case(file, damage, stage, overrides, Accepted())
    for damage in ("gone", "empty", "halved", "of noise", "with a bit turned"):
        yield damage_case(
            "train/metrics.jsonl", damage, "report", [], Either((Accepted(), Refused((("metrics", "train"),))))
        )


def _images() -> Iterator[Case]:
    """Pictures in the store: told by name before they are judged, or drawn again by the stage that draws."""
    for damage in DAMAGES:
        yield damage_case(
            "../store/images/*/images/00000.png", damage, "evaluate", [], Refused((("png", "images", "store"),))
        )
    for damage in ("gone", "empty", "halved", "of noise"):
        yield damage_case(
            "../store/images/*/manifest.json", damage, "evaluate", [], Refused((("store", "generate", "images"),))
        )
        yield damage_case(
            "../store/images/*/images/00000.png",
            damage,
            "generate",
            [],
            Either((Accepted(_as_drawn), Refused((("png", "store", "images"),)))),
        )
    yield changed_case(
        "an image of the store is another",
        lambda cwd: sorted((cwd / "runs/store/images").glob("*/images/00000.png"))[0].write_bytes(png(5, (32, 32))),
        "evaluate",
        Refused((("png", "images", "store"),)),
    )
    yield changed_case(
        "the store is gone", lambda cwd: shutil.rmtree(cwd / "runs/store"), "generate", Accepted(_as_drawn)
    )
    yield changed_case(
        "the store is gone",
        lambda cwd: shutil.rmtree(cwd / "runs/store"),
        "evaluate",
        Refused((("store", "generate"),)),
    )


def _as_drawn(made: Made, results: Sequence[Result]) -> list[str]:
    """The store's pictures are those of the finished run."""
    old = {
        path.relative_to(made.world.finished): path.read_bytes()
        for path in made.world.finished.glob("runs/store/images/*/images/*.png")
    }
    return [f"{name} is not what was drawn" for name, data in old.items() if (made.cwd / name).read_bytes() != data]


def _tables() -> Iterator[Case]:
    """Score tables of images: every file of an evaluation but its manifest."""
    for damage in DAMAGES:
        for pattern in ("evaluate/fz/*.parquet", "evaluate/base/*.parquet"):
            yield damage_case(pattern, damage, "report", [], Refused((("evaluate", "scores"),)))


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
        ("generate", "generate/fz/images.jsonl", "generate/base/images.jsonl"): ("evaluate", []),
        ("evaluate", "evaluate/fz/manifest.json", "evaluate/base/manifest.json"): ("report", []),
        ("pairs", "pairs/manifest.json", "label/manifest.json"): ("label", []),
        ("generate", "generate/fz/manifest.json", "generate/base/manifest.json"): ("evaluate", []),
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
        Either((Accepted(_third_step), Refused(("cache",)))),
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

    return Case(f"{name}, then train", make, expect, "https://github.com/kohya-ss/sd-scripts/issues/1075", limit_s=30)


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


def _folders() -> Iterator[Case]:
    """Folders that are no folders, or somebody else's."""
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


def at_random(rng: random.Random) -> Case:
    """A random file with a random bit turned or a random damage."""
    file = rng.choice(list(FILES))
    stage, overrides, names = FILES[file]
    damage = rng.choice([*DAMAGES, "with a bit turned", "with a bit turned"])
    return damage_case(file, damage, stage, overrides, Refused((names,)), seed=rng.randrange(2**32))
