"""Damage to a finished run: every file of it, in every way, and whatever else happens to folders over the months.

What is read must be the bytes that were written, or the stage says which file is not; a checkpoint may instead be
passed over for the one before, and what nobody depends on (logs, cards) may change as it likes.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
    for file in ("policy.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        for damage in DAMAGES:
            yield damage_case(f"{CHECKPOINT}/{file}", damage, "train", MORE, Accepted(third_step))
    texts = (
        "{}",
        "[]",
        "null",
        '{"policy.safetensors": {}}',
        '{"state.json": {"bytes": 1, "sha256": ""}}',
        '{"../x": {"bytes": 0, "sha256": "e3b0"}}',
    )
    for text in texts:
        yield changed_case(
            f"checkpoint's manifest is {text[:20]}",
            lambda cwd, text=text: (cwd / RUN / CHECKPOINT / "manifest.json").write_text(text),
            "train",
            Accepted(third_step),
            MORE,
            URL,
        )
    for name, change in {
        "both checkpoints are gone": lambda cwd: shutil.rmtree(cwd / RUN / "train/checkpoints"),
        "the newest checkpoint is gone": lambda cwd: shutil.rmtree(cwd / RUN / CHECKPOINT),
        "the newest checkpoint is empty": lambda cwd: [path.unlink() for path in (cwd / RUN / CHECKPOINT).iterdir()],
        "both checkpoints are damaged": lambda cwd: [
            path.write_bytes(b"") for path in (cwd / RUN / "train/checkpoints").glob("*/policy.safetensors")
        ],
        "a checkpoint of the future": lambda cwd: (cwd / RUN / "train/checkpoints/step-99999999").mkdir(),
        "half-written leftovers": lambda cwd: (cwd / RUN / "train/checkpoints/.tmp-00000003").mkdir(),
        "other people's files": lambda cwd: (cwd / RUN / "train/checkpoints/notes.txt").write_text("x"),
    }.items():
        yield changed_case(name, change, "train", Accepted(third_step), MORE, URL)
    either = Either((Accepted(third_step), Refused((("metrics", "step-00000009"),))))
    for name, change in {  # the report reads the log, so it is sealed like the weights; a file is no checkpoint
        "a checkpoint that is a file": lambda cwd: (cwd / RUN / "train/checkpoints/step-00000009").write_text("x"),
        "the log is cut in a line": lambda cwd: cut(cwd / RUN / "train/metrics.jsonl"),
        "the log is gone": lambda cwd: (cwd / RUN / "train/metrics.jsonl").unlink(),
        "the log is binary": lambda cwd: (cwd / RUN / "train/metrics.jsonl").write_bytes(b"\xff\x00\n"),
    }.items():
        yield changed_case(name, change, "train", either, MORE, URL)
    yield changed_case(
        "a checkpoint from another run",
        _foreign_checkpoint,
        "train",
        Either((Accepted(third_step), Refused((("checkpoint", "train"),)))),
        MORE,
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _foreign_checkpoint(cwd: Path) -> None:
    """Weights of equal shapes with a manifest that fits them, as copied from another run."""
    folder = cwd / RUN / CHECKPOINT
    tensors = load_file(folder / "policy.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "policy.safetensors")


def third_step(made: Made, results: Sequence[Result]) -> list[str]:
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
    """Pictures in the store: told by name before they are judged or shown, or drawn again by the stage that draws.

    An evaluation that is complete looks at no picture: its scores are those of the pictures that were drawn.
    """
    picture, named = "../store/images/*/images/00000.png", Refused((("png", "images", "store"),))
    for damage in DAMAGES:
        yield damage_case(picture, damage, "evaluate", ["paths.evaluate=new"], named)
    for damage in ("gone", "with a bit turned"):
        yield damage_case(picture, damage, "evaluate", [], Either((Accepted(), named)))
        yield damage_case(picture, damage, "report", [], named)
    for damage in ("gone", "empty", "halved", "of noise"):
        yield damage_case(
            "../store/images/*/manifest.json", damage, "evaluate", [], Refused((("store", "generate", "images"),))
        )
        yield damage_case(picture, damage, "generate", [], Either((Accepted(_as_drawn), named)))
    yield changed_case(
        "an image of the store is another",
        lambda cwd: sorted((cwd / "runs/store/images").glob("*/images/00000.png"))[0].write_bytes(png(5, (32, 32))),
        "evaluate",
        named,
        ["paths.evaluate=new"],
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


def at_random(rng: random.Random) -> Case:
    """A random file with a random bit turned or a random damage."""
    file = rng.choice(list(FILES))
    stage, overrides, names = FILES[file]
    damage = rng.choice([*DAMAGES, "with a bit turned", "with a bit turned"])
    return damage_case(file, damage, stage, overrides, Refused((names,)), seed=rng.randrange(2**32))
