"""Recipe files: text that is no recipe, text that looks like another, and settings that only a stage can judge."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tests.fuzz.case import Accepted, Case, Either, Expectation, Made, Refused, resolved
from tests.fuzz.overrides import SEAMS, refused
from tests.fuzz.running import Result
from tests.fuzz.world import World

Change = Callable[[str], str | bytes]
"""The text of a sound recipe -> that of the case."""


def text_case(name: str, change: Change, expect: Expectation, source: str = "") -> Case:
    """The dry run of `smpo cache` on a changed recipe file."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        file = cwd / "recipe.yaml"
        changed = change(file.read_text())
        file.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
        return [["cache", "recipe.yaml", "--dry-run"]]

    return Case(f"recipe file: {name}", make, expect, source)


def stage_case(stage: str, overrides: str | list[str], expect: Expectation, source: str = "") -> Case:
    """A stage on the finished run's folder, with overrides that only it can judge."""
    given = [overrides] if isinstance(overrides, str) else overrides

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        return [[stage, "recipe.yaml", *given]]

    return Case(f"{stage} {' '.join(given)[:90]}", make, expect, source)


def fixed() -> list[Case]:
    """All of them."""
    return [*_broken_texts(), *_sound_texts(), *_bases(), *_sources(), *_judged_by_stages(), *_usage()]


def _bomb(levels: int = 12) -> str:
    """Nine aliases a level: a few hundred bytes that stand for 9 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def _broken_texts() -> Iterator[Case]:
    changes: dict[str, Change] = {
        "empty": lambda text: "",
        "blank": lambda text: "\n\n",
        "comments alone": lambda text: "# name: x\n",
        "a list": lambda text: "- a\n- b\n",
        "a scalar": lambda text: "sd15-smpo\n",
        "null": lambda text: "null\n",
        "JSON cut short": lambda text: '{"name": "x", ',
        "tabs as indentation": lambda text: text.replace("  ", "\t"),
        "latin-1": lambda text: text.encode() + "# caf\u00e9\n".encode("latin-1"),
        "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
        "binary": lambda text: bytes(range(256)),
        "NUL": lambda text: text + "\x00",
        "control characters": lambda text: text + "# \x07\n",
        "two documents": lambda text: text + "---\n" + text,
        "an open quote": lambda text: text + 'x: "abc\n',
        "an open bracket": lambda text: text + "x: [1, 2\n",
        "an unknown tag": lambda text: text + "x: !secret y\n",
        "python object": lambda text: text + "x: !!python/object/apply:os.system [touch hacked]\n",
        "an undefined alias": lambda text: text + "x: *nowhere\n",
        "unhashable key": lambda text: text + "? [a]\n: b\n",
        "mapping as key": lambda text: text + "? {a: 1}\n: b\n",
        "merge of a scalar": lambda text: text + "<<: 1\n",
        "deep list": lambda text: text + "x: " + "[" * 3000 + "]" * 3000 + "\n",
        "deep mapping": lambda text: text + "x: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n",
        "a number of 5000 digits": lambda text: text + "seed: " + "9" * 5000 + "\n",
        "git conflict": lambda text: "<<<<<<< HEAD\n" + text + "=======\nname: y\n>>>>>>> other\n",
        "HTML": lambda text: "<!DOCTYPE html><html><body>404</body></html>",
        "TOML": lambda text: "[training]\nsteps = 4\n",
        "JSON lines": lambda text: '{"a": 1}\n{"b": 2}\n',
        "a bad date": lambda text: text + "x: 2024-13-45\n",
        "a bad binary": lambda text: text + "x: !!binary '===='\n",
        "only a colon": lambda text: ":\n",
    }
    for name, change in changes.items():
        yield text_case(name, change, Refused((("recipe.yaml", "x", "seed"),), writes=False))
    for key in ("cache", "training", "name", "objective"):
        yield text_case(
            f"{key} twice",
            lambda text, key=key: text + f"{key}: {'{}' if key != 'name' else 1}\n",
            refused(key),
            "https://github.com/yaml/pyyaml/issues/165",
        )
    yield text_case(
        "a nested key twice", lambda text: text.replace("steps: 2", "steps: 2\n  steps: 3"), refused("steps")
    )
    yield text_case("alias bomb", lambda text: text + _bomb(), refused(("a0", "recipe.yaml", "alias", "a11")))
    yield text_case(
        "alias bomb in a seam",
        lambda text: _bomb() + "\n" + text.replace("gamma: 1", "gamma: *a11"),
        refused(("a0", "recipe.yaml", "alias", "a11")),
    )
    yield text_case("alias that holds itself", lambda text: text + "x: &x [*x]\n", refused(("x", "recipe.yaml")))
    yield text_case("number as key", lambda text: text + "1: 2\n", refused(("recipe.yaml", "1:", "got 1")))
    yield text_case("null as key", lambda text: text + "~: 2\n", refused(("none", "null", "recipe.yaml", "~")))
    yield text_case("YAML 1.1 key", lambda text: text + "on: 2\n", refused(("true", "on", "recipe.yaml")))
    yield text_case(
        "number as key of a section", lambda text: text.replace("seed: 3", "3: 3"), refused(("3", "generation"))
    )
    for seam in SEAMS:
        for bad in ("x", "[1]", "null" if seam != "scorer" else "3", "{name: [x]}", "{name: {}}", "{}", "{name: 2.5}"):
            yield text_case(
                f"{seam}: {bad}", lambda text, seam=seam, bad=bad: _replaced(text, seam, bad), refused(seam)
            )


def _replaced(text: str, key: str, value: str) -> str:
    content = yaml.safe_load(text)
    content.pop(key)
    return yaml.safe_dump(content) + f"{key}: {value}\n"


def _sound_texts() -> Iterator[Case]:
    name = resolved("name", "fz")
    yield text_case("CRLF", lambda text: text.replace("\n", "\r\n"), name)
    yield text_case("UTF-8 mark", lambda text: "\ufeff" + text, name)
    yield text_case("UTF-16 with a mark", lambda text: text.encode("utf-16"), Either((name, refused("recipe.yaml"))))
    yield text_case("JSON", lambda text: json.dumps(yaml.safe_load(text)), name)
    yield text_case("no newline at the end", lambda text: text.rstrip("\n"), name)
    yield text_case("end of document", lambda text: "---\n" + text + "...\n", name)
    yield text_case("comments with #", lambda text: text + "# a #b\n", name)
    yield text_case(
        "harmless anchors",
        lambda text: text.replace("steps: 2", "steps: &n 2").replace("checkpoint_every: 1", "checkpoint_every: *n"),
        resolved("training.checkpoint_every", 2),
    )
    yield text_case(
        "emoji in a prompt",
        lambda text: text.replace("prompts: prompts.txt", "prompts: ['a \U0001f600']"),
        resolved("generation.prompts", ["a \U0001f600"]),
    )
    yield text_case(
        "1e-5 as number",
        lambda text: text.replace("lr: 0.001", "lr: 1e-5"),
        resolved("training.optimizer.lr", 1e-5),
        "https://github.com/huggingface/trl/pull/1450",
    )
    yield text_case(
        "no as a mixed precision",
        lambda text: text.replace("steps: 2", "steps: 2\n  mixed_precision: no"),
        resolved("training.mixed_precision", "no"),
    )


def _bases() -> Iterator[Case]:
    bases = {
        "itself": "recipe.yaml",
        "nothing": "nowhere.yaml",
        "a folder": ".",
        "a list": "[a]",
        "a number": "3",
        "a mapping": "{a: 1}",
        "empty text": '""',
        "a sweep": "tiny-table2",
        "null byte": '"a\\0b"',
    }
    for name, base in bases.items():
        yield text_case(
            f"base is {name}", lambda text, base=base: f"base: {base}\n" + text, refused(("base", "a\\x00b"))
        )
    yield text_case("a shipped base", lambda text: "base: sd15-smpo\n" + text, resolved("name", "fz"))
    yield text_case("base: null", lambda text: "base: null\n" + text, resolved("name", "fz"))

    def circle(cwd: Path, world: World) -> list[list[str]]:
        for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
            (cwd / f"{one}.yaml").write_text(f"base: {other}.yaml\nname: {one}\n")
        return [["cache", "a.yaml", "--dry-run"]]

    yield Case("recipe file: three bases in a circle", circle, refused("circle"))


def _sources() -> Iterator[Case]:
    """What is given as the recipe is no recipe."""

    def of(
        argument: str, prepare: Callable[[Path], None] = lambda cwd: None
    ) -> Callable[[Path, World], list[list[str]]]:
        def make(cwd: Path, world: World) -> list[list[str]]:
            prepare(cwd)
            return [["cache", argument, "--dry-run"]]

        return make

    arguments = {
        "nowhere.yaml": "nowhere",
        "": "recipe",
        "sd15-smpoo": "Did you mean 'sd15-smpo'",
        ".": "recipe",
        "../..": "recipe",
        "/dev/null": "recipe",
        "/dev/zero": "recipe",
        "/dev/stdin": "recipe",
        "x" * 5000: ("recipe", "name"),
        "a\nb": "recipe",
        "SD15-SMPO": "sd15-smpo",
        "tiny-table2": "recipe",
        "sd15-smpo.yaml": "sd15-smpo",
    }
    for argument, fragment in arguments.items():
        yield Case(f"recipe argument {argument[:30]!r}", of(argument), refused(fragment))
    yield Case("recipe argument FIFO", of("pipe", lambda cwd: os.mkfifo(cwd / "pipe")), refused("recipe"))
    yield Case(
        "recipe argument broken link", of("link", lambda cwd: (cwd / "link").symlink_to("no")), refused("recipe")
    )
    yield Case(
        "recipe argument loop of links", of("loop", lambda cwd: (cwd / "loop").symlink_to("loop")), refused("recipe")
    )


def _judged_by_stages() -> Iterator[Case]:
    """Values that fit their type and no model or machine."""
    fresh = ["paths.train=new"]
    yield stage_case("train", [*fresh, "training.max_timestep=1000"], Refused(("max_timestep",)))
    yield stage_case("train", [*fresh, "training.max_timestep=100000"], Refused(("max_timestep",)))
    yield stage_case(
        "train", [*fresh, "training.min_timestep=999", "training.max_timestep=1500"], Refused(("max_timestep",))
    )
    for resolution in (1, 2, 3, 5, 33, 1001):
        yield stage_case("cache", ["paths.cache=new", f"cache.resolution={resolution}"], Refused(("resolution",)))
    for device in ("cuda:7", "warp", "cuda", "0", "cpu:99:1", "", "mps", "meta", "hpu", "npu:1", "xpu"):
        given = ["paths.generate=new", "generation.seed=77", f"generation.device={device}"]  # another seed: to be drawn
        yield stage_case("generate", given, Refused((("device", "CUDA", "torch.hpu"),)))
    yield stage_case(
        "generate", ["paths.generate=new", "generation.num_inference_steps=1001"], Refused(("num_inference_steps",))
    )
    yield stage_case("generate", ["paths.generate=new", "generation.prompts=nowhere.txt"], Refused(("nowhere.txt",)))
    yield stage_case("generate", ["paths.generate=new", "generation.models={x: nowhere}"], Refused(("nowhere",)))
    for targets in ("nothing", "to_qq", "conv_in.weight", ".*", ""):
        yield stage_case(
            "train", [*fresh, "training.lora.rank=2", f'training.lora.targets=["{targets}"]'], Refused(("targets",))
        )
    for key in ("init_weights", "reference_weights"):
        yield stage_case("train", [*fresh, f"{key}=nowhere"], Refused(("nowhere",)))
        yield stage_case("train", [*fresh, f"{key}=prompts.txt"], Refused(("prompts.txt",)))
    for source in (
        "nowhere",
        "prompts.txt",
        ".",
        "/dev/null",
        "package://smpo",
        "package://nothing/x",
        "package://",
        "a/b/c/d",
    ):
        named = (source, "/src/smpo") if source == "package://smpo" else source
        yield stage_case("cache", ["paths.cache=new", f"model.source={source}"], Refused((named,)))
    for place in ("recipe.yaml", "recipe.yaml/x", "/dev/null/x", "/proc/x", "x" * 300, "runs/fz/train"):
        yield stage_case("pairs", f"paths.pairs={place}", Refused((place[:60],)))
        yield stage_case(
            "pairs", f"paths.workdir={place}", Refused((place[:60],)) if place != "runs/fz/train" else Accepted()
        )
    yield stage_case("pairs", "paths.workdir=run[/a]", Accepted(_says("run[/a]")))
    yield stage_case("pairs", "paths.workdir=exp[lr=1e-5]", Accepted(_says("exp[lr=1e-5]")))
    yield stage_case(
        "pairs", "paths.workdir=[bold]x[/bold]", Either((Accepted(_says("[bold]x[/bold]")), Refused(("workdir",))))
    )
    yield stage_case("pairs", "paths.workdir=~/here", Accepted(_at_home))
    yield stage_case("train", [*fresh, "training.optimizer.lr=1e308", "training.steps=1"], Refused((("finite", "lr"),)))
    yield stage_case("train", "objective.beta=1", Refused(("beta",)))
    yield stage_case("train", "training.steps=1", Refused(("steps",)))
    yield stage_case("sample", [], Refused(("sampling",)))
    yield stage_case("invert", [], Refused(("cached_inversion_epochs",)))
    yield stage_case("run", "data.source=nowhere", Refused(("nowhere",)))
    yield stage_case("run", "evaluation.scorers.x={name: verifier}", Refused(("scorers.x",)))


def _says(text: str) -> Callable[[Made, list[Result]], list[str]]:
    def check(made: Made, results: list[Result]) -> list[str]:
        return [] if text in results[-1].out else [f"{text} is not in the output as it is: {results[-1].out[:200]!r}"]

    return check


def _at_home(made: Made, results: list[Result]) -> list[str]:
    home = made.notes["home"] / "here" / "pairs" / "manifest.json"
    return [] if home.exists() else ["~ was not expanded to the home folder"]


def _usage() -> Iterator[Case]:
    """Wrong usage is exit code 2, with a hint."""
    for argv, fragment in (
        (["trian", "recipe.yaml"], "train"),
        (["cache"], "recipe"),
        (["cache", "--nope", "x"], "nope"),
        (["sweep", "nowhere"], "nowhere"),
        (["show", "nowhere"], "nowhere"),
        (["cost", "nowhere"], "nowhere"),
        (["cost", "sd15-smpo", "--processes", "0"], "processes"),
        (["cost", "sd15-smpo", "--split", "nope"], "nope"),
        (["cost", "sd15-smpo", "--utilisation", "-1"], "utilisation"),
        (["cost", "sd15-smpo", "--data", "0", "0"], "pairs"),
        (["cost", "sd15-smpo", "--measured", "nowhere"], "nowhere"),
        (["audit", "nowhere"], "nowhere"),
        (["report", "recipe.yaml", "seed"], "seed"),
        (["sweep", "tiny-table2", "--jobs", "0"], "jobs"),
    ):

        def make(cwd: Path, world: World, argv: list[str] = argv) -> list[list[str]]:
            world.write_recipe(cwd)
            return [argv]

        yield Case(f"usage: {' '.join(argv)}", make, refused(fragment))


def at_random(rng: random.Random) -> Case:
    """A recipe file with a piece of it replaced by noise: refused in one line, or still a recipe."""
    start, length, seed = rng.random(), rng.randint(1, 12), rng.randrange(2**32)

    def change(text: str) -> bytes:
        data, draw = bytearray(text.encode()), random.Random(seed)
        place = int(start * len(data))
        data[place : place + length] = bytes(draw.choice(b"{}[]:,&*!|>'\"%@`#\n\t -0aZ\xff\x00") for _ in range(length))
        return bytes(data)

    return text_case(f"noise of {length} bytes at {start:.3f}, {seed}", change, Either((Accepted(), Refused())))
