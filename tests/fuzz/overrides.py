"""Overrides: every key of a recipe with good, wrong and misleading values; the right outcome is known from its kind."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, Either, Expectation, Refused, resolved
from tests.fuzz.world import World

INTEGERS: dict[str, tuple[int, int]] = {  # key -> (smallest value, a larger one that suits the other settings)
    "seed": (0, 7),
    "cache.resolution": (8, 64),
    "cache.crops": (1, 3),
    "cache.batch_size": (1, 5),
    "training.steps": (1, 12),
    "training.batch_size": (1, 4),
    "training.min_timestep": (1, 30),
    "training.max_timestep": (1, 500),
    "training.checkpoint_every": (1, 9),
    "training.keep_checkpoints": (1, 3),
    "training.log_every": (1, 4),
    "training.workers": (0, 1),
    "training.optimizer.warmup_steps": (0, 3),
    "training.samples.every": (0, 2),
    "training.samples.num_inference_steps": (1, 3),
    "generation.limit": (1, 2),
    "generation.per_category": (1, 2),
    "generation.batch_size": (1, 3),
    "generation.images_per_prompt": (1, 2),
    "generation.num_inference_steps": (1, 3),
    "generation.seed": (0, 3),
    "scoring.batch_size": (1, 3),
    "scoring.block_size": (1, 3),
    "evaluation.batch_size": (1, 3),
    "data.max_rows": (1, 5),
    "training.cached_inversion_epochs": (1, 2),
    "training.lora.rank": (1, 4),
    "training.micro_batch_size": (1, 2),
}
NUMBERS: dict[str, tuple[float, float, float]] = {  # key -> (a good value, one too small, one too large or NaN)
    "training.optimizer.lr": (1e-5, 0.0, float("inf")),
    "training.optimizer.weight_decay": (0.1, -0.1, float("inf")),
    "training.optimizer.eps": (1e-6, 0.0, float("nan")),
    "training.optimizer.max_grad_norm": (0.5, 0.0, float("nan")),
    "training.caption_dropout": (0.25, -0.1, 1.1),
    "training.ema_decay": (0.99, 0.0, 1.0),
    "training.lora.alpha": (2.5, 0.0, float("inf")),
    "training.lora.dropout": (0.5, -0.1, 1.0),
    "data.max_dropped_fraction": (0.5, -0.1, 1.5),
    "objective.beta": (500.0, 0.0, float("inf")),
    "objective.gamma": (2.5, -1.0, float("nan")),
    "generation.guidance_scale": (3.5, -1.0, float("nan")),
    "training.samples.guidance_scale": (3.5, -1.0, float("inf")),
}
SWITCHES = (
    "cache.flips",
    "data.labelled",
    "data.drop_human_ties",
    "generation.unique",
    "report.browser",
    "training.compile",
    "training.channels_last",
    "training.optimizer.fused",
)
CHOICES: dict[str, tuple[str, ...]] = {
    "cache.crop": ("center", "random"),
    "cache.sizes": ("constant", "real"),
    "cache.empty_prompt": ("encode", "zeros"),
    "cache.dtype": ("float32", "float16"),
    "cache.vae_dtype": ("float32", "bfloat16"),
    "training.flips": ("none", "shared"),
    "training.latents": ("sample", "mean"),
    "training.mixed_precision": ("no", "bf16"),
    "training.optimizer.name": ("adamw", "adafactor"),
    "training.optimizer.schedule": ("constant", "cosine"),
    "training.lora.init": ("gaussian", "kaiming"),
    "generation.dtype": ("float32", "bfloat16"),
    "evaluation.protocol": ("all", "median-image"),
}
TEXTS = ("paths.workdir", "paths.store", "paths.cache", "data.source", "model.source", "reference_weights")
SEAMS = ("model", "labels", "noising", "objective", "scorer")
FLAGS: dict[str, str] = {  # flags of diffusers' scripts, TRL and kohya, as an override -> the key that does it here
    "training.learning_rate=1e-5": "training.optimizer.lr",
    "learning_rate=1e-5": "training.optimizer.lr",
    "training.lr=1e-5": "training.optimizer.lr",
    "optimizer.lr=1e-5": "training.optimizer",
    "train_batch_size=4": "training.micro_batch_size",
    "training.train_batch_size=4": "training.micro_batch_size",
    "per_device_train_batch_size=2": "training.micro_batch_size",
    "max_train_steps=10": "training.steps",
    "training.max_steps=10": "training.steps",
    "training.max_train_steps=10": "training.steps",
    "gradient_accumulation_steps=2": "training.batch_size",
    "training.gradient_accumulation_steps=2": "batch_size",
    "beta_dpo=2000": "objective.beta",
    "beta=2000": "objective.beta",
    "training.beta=2000": "objective.beta",
    "pretrained_model_name_or_path=x": "model.source",
    "model_name_or_path=x": "model.source",
    "resolution=512": "cache.resolution",
    "training.resolution=512": "cache.resolution",
    "output_dir=x": "paths.workdir",
    "training.output_dir=x": "paths.workdir",
    "report_to=wandb": "training.trackers",
    "training.report_to=wandb": "training.trackers",
    "network_dim=8": "training.lora.rank",
    "network_alpha=4": "training.lora.alpha",
    "training.rank=8": "training.lora.rank",
    "lr_scheduler=cosine": "training.optimizer.schedule",
    "lr_warmup_steps=10": "training.optimizer.warmup_steps",
    "training.warmup_steps=10": "training.optimizer.warmup_steps",
    "mixed_precision=bf16": "training.mixed_precision",
    "max_grad_norm=1": "training.optimizer.max_grad_norm",
    "checkpointing_steps=5": "training.checkpoint_every",
    "save_steps=5": "training.checkpoint_every",
    "dataset_name=x": "data.source",
    "train_data_dir=x": "data.source",
    "use_8bit_adam=true": "training.optimizer.name",
    "adam_beta1=0.9": "training.optimizer.betas",
    "weight_decay=0.1": "training.optimizer.weight_decay",
    "guidance_scale=5": "generation.guidance_scale",
    "num_inference_steps=5": "num_inference_steps",
    "gradient_checkpointing=true": "training.gradient_checkpointing",
    "caption_dropout_rate=0.1": "training.caption_dropout",
    "optimizer_type=adafactor": "training.optimizer.name",
    "validation_prompts=x": "training.samples.prompts",
    "logging_steps=1": "training.log_every",
}


def case(override: str | Sequence[str], expect: Expectation, source: str = "") -> Case:
    """The dry run of `smpo cache` on the world's recipe with these overrides: it resolves, prints, and does nothing."""
    given = [override] if isinstance(override, str) else list(override)

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        return [["cache", "recipe.yaml", *given, "--dry-run"]]

    return Case(f"override {' '.join(given)[:90]}", make, expect, source)


def refused(*fragments: str | tuple[str, ...]) -> Refused:
    """An override's refusal; a dry run never writes."""
    return Refused(fragments, writes=False)


def text_or_refused(key: str, text: str) -> Either:
    """What is written is kept as it was written, or it is refused by name; it is never something else."""
    return Either((resolved(key, text), refused(key.rpartition(".")[2])))


def fixed() -> list[Case]:
    """Every key with every kind of value, and the misleading ones one by one."""
    found = [*_integers(), *_numbers(), *_switches(), *_choices(), *_texts(), *_seams(), *_shapes(), *_names()]
    found += [case(flag, refused(key)) for flag, key in FLAGS.items()]
    return found


def _needs(key: str) -> list[str]:
    """What else has to be set for `key` to make sense."""
    lora = ["training.lora.rank=2"] if key.startswith("training.lora") and key != "training.lora.rank" else []
    stored = ["noising.name=ddim", "noising.network=reference"] if key == "training.cached_inversion_epochs" else []
    return lora + stored


def _integers() -> Iterator[Case]:
    for key, (smallest, larger) in INTEGERS.items():
        needs, last = _needs(key), key.rpartition(".")[2]
        for good in {smallest, larger}:
            fits = key != "training.batch_size" or good % 2 == 0
            yield case([*needs, f"{key}={good}"], resolved(key, good) if fits else refused(last))
        for bad in (smallest - 1, 1.5, "abc", ".nan", "[1, 2]", "{a: 1}", "true"):
            yield case([*needs, f"{key}={bad}"], refused(last))


def _numbers() -> Iterator[Case]:
    for key, (good, small, large) in NUMBERS.items():
        needs, last = _needs(key), key.rpartition(".")[2]
        yield case([*needs, f"{key}={good!r}"], resolved(key, good))
        for bad in (
            small,
            f".{large}" if str(large) in ("inf", "nan") else large,
            "-.inf",
            ".nan",
            "abc",
            "[1]",
            "true",
        ):
            yield case([*needs, f"{key}={bad}"], refused(last))


def _switches() -> Iterator[Case]:
    for key in SWITCHES:
        needs = ["training.flips=none"] if key == "cache.flips" else []
        for text, value in (("true", True), ("false", False), ("yes", True), ("off", False)):
            yield case([*needs, f"{key}={text}"], resolved(key, value))
        for bad in ("maybe", "2", "[true]", "0.5"):
            yield case([*needs, f"{key}={bad}"], refused(key.rpartition(".")[2]))


def _choices() -> Iterator[Case]:
    for key, values in CHOICES.items():
        for value in values:
            yield case([*_needs(key), f"{key}={value}"], resolved(key, value))
        for bad in (values[0][:-1] + "q", "1", "[a]", "null", '""'):
            yield case([*_needs(key), f"{key}={bad}"], refused(key.rpartition(".")[2]))


def _texts() -> Iterator[Case]:
    """Paths as a shell hands them over: what is written is meant."""
    for key in TEXTS:
        for text in (
            "a #b",
            "runs/x: y",
            "exp[lr=1e-5]",
            "run[/a]",
            "2024",
            "1e5",
            "007",
            "no",
            "a,b",
            "*.parquet",
            "&x",
            "%x",
            "@x",
            "12:30:45",
            "{x}",
            "[x]",
            "'a",
            "a\tb",
            "2024-01-01",
            "0x10",
            "1_000",
            ":",
        ):
            if not (key in ("data.source", "model.source", "reference_weights") and text == "no"):
                yield case(f"{key}={text}", text_or_refused(key, text))
        yield case(f"{key}=", refused(key.rpartition(".")[2]))
        # YAML's null, as documented, though shells mean the home folder by it: the default, or refused
        yield case(f"{key}=~", Either((resolved(key, None), refused(key.rpartition(".")[2]))))


def _seams() -> Iterator[Case]:
    for seam in SEAMS:
        for bad in ("[a]", "{a: 1}", "1", "null", "[[]]", ".nan"):
            yield case(f"{seam}.name={bad}", refused((seam, "name")))
        yield case(f"{seam}=dpo", refused(seam))
        yield case(f"{seam}=[1]", refused(seam))
        yield case(f"{seam}={{}}", refused(seam))
        yield case(f"{seam}.nonsense=1", refused("nonsense", seam))
    for override, fragment in {
        "objective.name=dpoo": "Did you mean 'dpo'",
        "labels.name=smooth": "Did you mean 'smoothed'",
        "noising.name=renois": "Did you mean 'renoise'",
        "model.name=sdx": "Did you mean 'sdxl'",
        "training.stepz=1": "Did you mean 'steps'",
        "trainin.steps=1": "training",
        "model.sauce=x": "source",
        "objective.betta=1": "beta",
        "evaluation.scorers.a.name=pickscor": "pickscore",
        "scoring.also.a.name=hpsv3": "hpsv2",
        "training.optimizer.name=adam": "adamw",
        "cache.resolutoin=64": "resolution",
        "paths.workdr=x": "workdir",
        "generation.promts=x": "prompts",
    }.items():
        yield case(override, refused(fragment))


def _shapes() -> Iterator[Case]:
    """Overrides that are no assignment, and keys that lead nowhere."""
    for text in (
        "training.steps",
        "=1",
        "training.=1",
        ".training=1",
        "training..steps=1",
        "training.steps.x=1",
        "seed.x=1",
        "a.b.c.d=1",
        "paths.workdir.x=1",
        "training=1",
        "training=null",
        "data=null",
        "cache=[]",
        "training.optimizer=adamw",
        "training.samples=1",
        "generation.prompts=1",
        "training.trackers=1",
        "training.trackers=[1]",
        "data.exclude_words=1",
        "training.optimizer.betas=[0.9]",
        "training.optimizer.betas=[0.9, 1.5]",
        "training.optimizer.betas=0.9",
        "scoring.also=1",
        "scoring.also.x=1",
        "scoring.also.x={}",
        "evaluation.scorers=[]",
        "generation.models=[a]",
        "generation.models.x=1",
        "paths=x",
        "report.published=1",
        "base=sd15-smpo",
        "training.lora=8",
        "training.lora=true",
        "training.lora.targets=[]",
        "model.revision=[1]",
        "version=2",
        "seed=!!python/object:os.system {}",
        "seed=!!python/name:os.system",
        "seed=*x",
        "seed=&a *a",
        "seed=" + "9" * 5000,
        "seed=" + "[" * 500,
        "seed=" + "{a: " * 200,
        "seed=\x00",
        "seed=1: 2: 3",
        "sampling.prompts=x",
        "training.batch_size=3",
        "training.flips=independent cache.flips=false",
    ):
        first = text.partition("=")[0].partition(".")[0]
        yield case(
            text.split(" ") if "cache.flips" in text else text,
            refused(("also" if "also.x" in text else first, "override")),
        )
    for text, key, value in (
        ("seed=010", "seed", 10),
        ("seed=1:30", "seed", None),
        ("seed=1_0", "seed", 10),
        ("seed=0x10", "seed", 16),
        ("training.steps=1e1", "training.steps", 10),
        ("training.steps=10.0", "training.steps", 10),
        ("seed= 4", "seed", 4),
    ):
        either = [refused("seed" if "seed" in key else "steps")] + ([] if value is None else [resolved(key, value)])
        yield case(text, Either(either))
    for value in ("1e-5", "1E-5", "0.00001", "1.0e-5", "+1e-5"):
        yield case(
            f"training.optimizer.lr={value}",
            resolved("training.optimizer.lr", 1e-5),
            "https://github.com/hiyouga/LlamaFactory/issues/4014",
        )
    for words in (["no", "off"], ["a", "b c"], ["1"]):
        text = f"data.exclude_words=[{', '.join(words)}]"
        yield case(text, Either((resolved("data.exclude_words", words), refused("exclude_words"))))
    yield case(["seed=1", "seed=2"], Either((resolved("seed", 2), refused("seed"))))
    yield case("training.cached_inversion_epochs=null", resolved("training.cached_inversion_epochs", None))
    yield case("training.trackers=[]", resolved("training.trackers", []))
    yield case("training.trackers=[tensorboard]", resolved("training.trackers", ["tensorboard"]))
    for bad in ("nope", "wand", "tensorboardx"):
        yield case(f"training.trackers=[{bad}]", refused("trackers", bad))


def _names() -> Iterator[Case]:
    """Names become folders, columns and files."""
    for name in (
        "..",
        ".",
        "a/b",
        "../x",
        "/abs",
        "",
        "a b",
        "a\n",
        "base",
        "x" * 300,
        "run[/a]",
        ".hidden/../x",
        "~",
        "con/x",
        "\u00e9t\u00e9",
        "a\\b",
        "$(x)",
        "-",
        "--help",
    ):
        harmless = name in ("-", "--help", "~")
        expect = Either((resolved("name", name), refused("name"))) if harmless else refused("name")
        yield case(f"name={json.dumps(name)}", expect)
    for name in ("2024", "1e5", "007", "no", "null", "true", "1_0", "2024-01-01"):
        yield case(f"name={name}", text_or_refused("name", name))
    for name in ("../x", "base", "fz", "a/b", "..", "", ".", "x" * 300, "a\u0000b"):
        yield case(f"generation.models={json.dumps({name: 'x'})}", refused(("models", "name")))
        if name not in ("base", "fz"):
            table = json.dumps({name: {"name": "verifier"}})
            yield case(f"evaluation.scorers={table}", refused(("scorer", "name")))
            yield case(f"scoring.also={table}", refused(("also", "name")))
    yield case('scoring.also={"pickscore": {"name": "verifier"}}', refused("pickscore"))


def at_random(rng: random.Random) -> Case:
    """One key with one value out of all pools; mostly wrong."""
    key = rng.choice([*INTEGERS, *NUMBERS])
    last, needs = key.rpartition(".")[2], _needs(key)
    digits = rng.randint(1, 12)
    bad: list[Any] = [
        "".join(rng.choice("abcxyz") for _ in range(digits)),
        f"-{rng.randint(1, 10**digits)}",
        ".nan",
        "[" + ", ".join(["1"] * rng.randint(2, 4)) + "]",
        '"x"',
        "{k: 1}",
        "-.inf",
    ]
    if key in INTEGERS:
        good: Any = rng.choice(INTEGERS[key])
        fits = key != "training.batch_size" or good % 2 == 0
        if rng.random() < 0.3:
            return case([*needs, f"{key}={good}"], resolved(key, good) if fits else refused(last))
        bad.append(f"{rng.randint(1, 9)}.{rng.randint(1, 9)}")
    elif rng.random() < 0.3:
        return case([*needs, f"{key}={NUMBERS[key][0]!r}"], resolved(key, NUMBERS[key][0]))
    return case([*needs, f"{key}={rng.choice(bad)}"], refused(last))
