"""What each override of a recipe comes to: a value, or one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest

from smpo.core.errors import ConfigError
from smpo.pipeline.config import Recipe, load_recipe

EMPTY = "the value is empty (an unset shell variable?); give one, or write null for none"
NO_OVERRIDE = "override must look like section.key=value, got "
HUGE = "a whole number of more than 63 bits; no setting is that large"

TAKEN: list[tuple[str, str, Any]] = [  # override, the key it reaches, the value found there
    ("training.optimizer.lr=1e-5", "training.optimizer.lr", 1e-5),
    ("training.optimizer.lr=1E-5", "training.optimizer.lr", 1e-5),
    ("training.optimizer.lr=.00001", "training.optimizer.lr", 1e-5),
    ("training.optimizer.lr=1", "training.optimizer.lr", 1.0),
    ("training.steps=1e3", "training.steps", 1000),
    ("training.steps=1_000", "training.steps", 1000),
    ("training.steps=0x10", "training.steps", 16),
    ("training.steps=010", "training.steps", 10),
    ("training.steps= 7 ", "training.steps", 7),
    ("training.steps='7'", "training.steps", 7),
    ("training.mixed_precision=no", "training.mixed_precision", "no"),
    ("training.mixed_precision='no'", "training.mixed_precision", "no"),
    ("training.gradient_checkpointing=no", "training.gradient_checkpointing", False),
    ("training.gradient_checkpointing=on", "training.gradient_checkpointing", True),
    ("training.gradient_checkpointing=selective", "training.gradient_checkpointing", "selective"),
    ("training.compile=yes", "training.compile", True),
    ("training.compile=True", "training.compile", True),
    ("training.compile=1", "training.compile", True),
    ("training.trackers=[]", "training.trackers", ()),
    ("training.trackers=[wandb, tensorboard]", "training.trackers", ("wandb", "tensorboard")),
    ("training.tracking.project=my project", "training.tracking.project", "my project"),
    ("training.optimizer.betas=[0.9, 0.95]", "training.optimizer.betas", (0.9, 0.95)),
    ("training.lora.rank=4", "training.lora.rank", 4),
    ("training.lora={rank: 4}", "training.lora.rank", 4),
    ("training.lora={}", "training.lora.rank", 8),
    ("training.ema_decay=null", "training.ema_decay", None),
    ("training.ema_decay=~", "training.ema_decay", None),
    ("paths.workdir=/data/my runs", "paths.workdir", "/data/my runs"),
    ("paths.workdir=/data/a #b", "paths.workdir", "/data/a #b"),
    ("paths.workdir=#b", "paths.workdir", "#b"),
    ("paths.workdir=a: b", "paths.workdir", "a: b"),
    ("paths.workdir=a=b", "paths.workdir", "a=b"),
    ("paths.workdir=- a", "paths.workdir", "- a"),
    ("paths.workdir=*a", "paths.workdir", "*a"),
    ("paths.workdir=&a", "paths.workdir", "&a"),
    ("paths.workdir=!a", "paths.workdir", "!a"),
    ("paths.workdir=@a", "paths.workdir", "@a"),
    ("paths.workdir=%a", "paths.workdir", "%a"),
    ("paths.workdir=|", "paths.workdir", "|"),
    ("paths.workdir=run[/a]", "paths.workdir", "run[/a]"),
    ("paths.workdir=exp[lr=1e-5]", "paths.workdir", "exp[lr=1e-5]"),
    ("paths.workdir='[a]'", "paths.workdir", "[a]"),
    ('paths.workdir="a\\tb"', "paths.workdir", "a\tb"),
    ("paths.workdir=2024-01-01", "paths.workdir", "2024-01-01"),
    ("paths.workdir=1:30", "paths.workdir", "1:30"),
    ("paths.workdir=yes", "paths.workdir", "yes"),
    ("paths.workdir=null", "paths.workdir", None),
    ("paths.workdir=''", "paths.workdir", ""),
    ("paths.workdir=~/x", "paths.workdir", "/home/someone/x"),
    ("paths.cache=$SCRATCH/c", "paths.cache", "/scratch/c"),
    ("paths.cache=${SCRATCH}c", "paths.cache", "/scratchc"),
    ("paths.cache=a~/b", "paths.cache", "a~/b"),
    ("paths.cache=a$", "paths.cache", "a$"),
    ("init_weights=~/x", "init_weights", "/home/someone/x"),
    ("reference_weights=$SCRATCH/x", "reference_weights", "/scratch/x"),
    ("data.source=~/pairs.jsonl", "data.source", "/home/someone/pairs.jsonl"),
    ("model.source=~/sd", "model.source", "/home/someone/sd"),
    ("scorer.source=~/s", "scorer.source", "/home/someone/s"),
    ("generation.prompts=~/p.txt", "generation.prompts", "/home/someone/p.txt"),
    ("generation.prompts=[~/p.txt, ~/q.txt]", "generation.prompts", ("/home/someone/p.txt", "/home/someone/q.txt")),
    ("generation.prompts=[costs $5, a ~ b]", "generation.prompts", ("costs $5", "a ~ b")),
    ("generation.models.other=~/m", "generation.models.other", "/home/someone/m"),
    ("training.samples.prompts=[a cat, '1']", "training.samples.prompts", ("a cat", "1")),
    ("seed=9223372036854775807", "seed", 2**63 - 1),
    ("name=2024-run", "name", "2024-run"),
    ("generation.device=cuda:1", "generation.device", "cuda:1"),
    ("generation.seed=1.0", "generation.seed", 1),
    ("objective.beta=500", "objective.beta", 500.0),
    ("labels.score_range=[0, 1]", "labels.score_range", (0.0, 1.0)),
    ("data.exclude_words=[no, off]", "data.exclude_words", ("no", "off")),
]

REFUSED: list[tuple[str, str, str]] = [  # override, how the line begins, what it has further on
    # the form
    ("steps", NO_OVERRIDE + "'steps'", ""),
    ("=3", NO_OVERRIDE + "'=3'", ""),
    (".=3", NO_OVERRIDE + "'.=3'", ""),
    ("a..b=3", NO_OVERRIDE + "'a..b=3'", ""),
    (".seed=3", NO_OVERRIDE + "'.seed=3'", ""),
    (" seed=3", NO_OVERRIDE + "' seed=3'", ""),
    ("--seed=3", "--seed: unknown key", "Did you mean 'seed'?"),
    ("paths.workdir=", f"override 'paths.workdir=': {EMPTY}", ""),
    ("paths.workdir=  ", f"override 'paths.workdir=  ': {EMPTY}", ""),
    ("name=", f"override 'name=': {EMPTY}", ""),
    ("training.steps=", f"override 'training.steps=': {EMPTY}", ""),
    ("training.steps=[1", "override 'training.steps=[1': not valid YAML (while parsing a flow sequence", ""),
    ("labels={name: hard", "override 'labels={name: hard': not valid YAML", ""),
    ("labels={name: hard, name: votes}", "override 'labels={name: hard, name: votes}': 'name' stands here again", ""),
    ("labels={1: hard}", "override 'labels={1: hard}': a key must be text, got '1'; quote it", ""),
    ("labels={[a]: hard}", "override 'labels={[a]: hard}': a key must be text", ""),
    ("paths.workdir='a", "override 'paths.workdir='a': not valid YAML", ""),
    ("paths.workdir='a' b", "override 'paths.workdir='a' b': not valid YAML", ""),
    ("paths.workdir=[a] b", "override 'paths.workdir=[a] b': not valid YAML", ""),
    ("data.exclude_words=[a] #b", "override 'data.exclude_words=[a] #b': '#b' follows the value", ""),
    ("data.exclude_words=!!set {a}", "data.exclude_words: must be a list such as [a, b], got '!!set {a}'", ""),
    ("data.exclude_words=[!!binary aGk=]", "override", "the tag 'binary' is not read here"),
    ("data.exclude_words=[&a [x], *a]", "data.exclude_words.0: must be a text", ""),
    ("data.exclude_words=[&a [*a]]", "override", "an alias stands inside the value that it repeats"),
    ("data.exclude_words=" + "[" * 60 + "]" * 60, "override", "nested deeper than 32 levels"),
    ("data.exclude_words=" + "[" * 100_000, "override", "nested deeper than 32 levels"),
    ("seed=" + "9" * 30, "override", HUGE),
    ("seed=" + "9" * 5000, "override", "not a number, or one of too many digits"),
    ("training.batch_size=1" + "0" * 30, "override", HUGE),
    ("training.optimizer.lr=1" + "0" * 400, "override", HUGE),
    ("name=a\udcffb", "override 'name=a\\udcffb'", "a text that is not UTF-8"),
    # unknown keys
    ("x=3", "x: unknown key; known: name, seed, ", ""),
    ("base=sd15-dpo", "base: unknown key", ""),
    ("training.stepz=3", "training.stepz: unknown key", "Did you mean 'steps'?"),
    ("trianing.steps=3", "trianing: unknown key", "Did you mean 'training'?"),
    ("training.learning_rate=3", "training.learning_rate: unknown key", "Did you mean 'training.optimizer.lr'?"),
    ("learning_rate=3", "learning_rate: unknown key", "Did you mean 'training.optimizer.lr'?"),
    ("training.lr=3", "training.lr: unknown key", "Did you mean 'training.optimizer.lr'?"),
    ("objective.lr=3", "objective.lr: unknown key", "Did you mean 'training.optimizer.lr'?"),
    ("training.max_train_steps=3", "training.max_train_steps: unknown key", "Did you mean 'training.steps'?"),
    ("training.beta=3", "training.beta: unknown key", "Did you mean 'objective.beta'?"),
    ("training.gamma=3", "training.gamma: unknown key", "Did you mean 'objective.gamma'?"),
    ("training.resolution=3", "training.resolution: unknown key", "Did you mean 'cache.resolution'?"),
    ("training.report_to=wandb", "training.report_to: unknown key", "Did you mean 'training.trackers'?"),
    ("training.network_dim=3", "training.network_dim: unknown key", "Did you mean 'training.lora.rank'?"),
    ("training.train_batch_size=3", "training.train_batch_size: unknown key", "'training.micro_batch_size'?"),
    ("output_dir=x", "output_dir: unknown key", "Did you mean 'paths.workdir'?"),
    ("workdir=x", "workdir: unknown key", "Did you mean 'paths.workdir'?"),
    ("inversion_steps=3", "inversion_steps: unknown key", "Did you mean 'noising.inversion_steps'?"),
    ("labels.gird=3", "labels.gird: unknown key", ""),
    ("noising.gird=subdivide", "noising.gird: unknown key", "Did you mean 'grid'?"),
    ("model.revison=x", "model.revison: unknown key", "Did you mean 'revision'?"),
    ("scorer.sourc=x", "scorer.sourc: unknown key", "Did you mean 'source'?"),
    ("evaluation.scorers.clip={name: clip, sourc: x}", "evaluation.scorers.clip.sourc: unknown key", "'source'?"),
    ("evaluation.held_out={pairs: a, label: b, cache: c, x: 1}", "evaluation.held_out.x: unknown key", ""),
    ("report.published.promts=x", "report.published.promts: unknown key", "Did you mean"),
    ("name.first=x", "name.first: 'name' is a value, not a section", ""),
    ("seed.x=3", "seed.x: 'seed' is a value, not a section", ""),
    ("training.steps.x=3", "training.steps.x: 'steps' is a value, not a section", ""),
    # kinds of value
    ("name=3", "name: must be a text, got 3; put it in quotes", ""),
    ("name=[a]", "name: must be a text, got ['a']", ""),
    ("name=null", "name: must be a text, got null", ""),
    ("name=../x", "name: recipe '../x' cannot be the name of a folder", ""),
    ("name=a/b", "name: recipe 'a/b' cannot be the name of a folder", ""),
    ("seed=x", "seed: must be a whole number, got 'x'", ""),
    ("seed=1.5", "seed: must be a whole number, got 1.5", ""),
    ("seed=true", "seed must be a number, got true", ""),
    ("seed=null", "seed: must be a whole number, got null", ""),
    ("seed=[1]", "seed: must be a whole number, got [1]", ""),
    ("training=3", "training: must be keys such as {a: 1}, got 3", ""),
    ("training=null", "training: must be keys", ""),
    ("training.steps=ten", "training.steps: must be a whole number, got 'ten'", ""),
    ("training.steps=true", "training.steps must be a number, got true", ""),
    ("training.steps={a: 1}", "training.steps: must be a whole number, got {'a': 1}", ""),
    ("training.optimizer=adam", "training.optimizer: must be keys", ""),
    ("training.optimizer.lr=fast", "training.optimizer.lr: must be a number, got 'fast'", ""),
    ("training.optimizer.lr=1e-5f", "training.optimizer.lr: must be a number, got '1e-5f'", ""),
    ("training.optimizer.lr=1,5", "training.optimizer.lr: must be a number, got '1,5'", ""),
    ("training.optimizer.betas=0.9", "training.optimizer.betas: must be a list such as [a, b], got 0.9", ""),
    ("training.optimizer.betas=[0.9]", "training.optimizer.betas.1: required, but missing", ""),
    ("training.lora=8", "training.lora: must be keys", ""),
    ("training.lora.targets=to_q", "training.lora.targets: must be a list", ""),
    ("training.trackers=wandb", "training.trackers: must be a list such as [a, b], got 'wandb'", ""),
    ("training.samples.prompts=a cat", "training.samples.prompts: must be a list", ""),
    ("training.mixed_precision=false", "training.mixed_precision: must be 'no', 'bf16' or 'fp16', got False", ""),
    ("training.mixed_precision=bf61", "training.mixed_precision: must be", "Did you mean 'bf16'?"),
    ("training.gradient_checkpointing=maybe", "training.gradient_checkpointing: must be true or false or", ""),
    ("training.flips=yes", "training.flips: must be 'none', 'shared' or 'independent', got 'yes'", ""),
    ("cache.flips=maybe", "cache.flips: must be true or false, got 'maybe'", ""),
    ("cache.dtype=fp16", "cache.dtype: must be 'float32' or 'float16', got 'fp16'", ""),
    ("generation.prompts=3", "generation.prompts: must be a list such as [a, b] or a text, got 3", ""),
    ("generation.prompts=[a, 3]", "generation.prompts.1: must be a text, got 3", ""),
    ("generation.models=[a]", "generation.models: must be keys", ""),
    ("generation.models.x=3", "generation.models.x: must be a text, got 3", ""),
    ("evaluation.scorers.clip=null", "evaluation.scorers.clip: must be keys", ""),
    ("scoring.also=[a]", "scoring.also: must be keys", ""),
    ("report.published=3", "report.published: must be keys", ""),
    ("report.published.models.x.y=3", "report.published.models.x: must be a text", ""),
    # names of members
    ("labels=hard", "labels: must be keys", ""),
    ("labels=null", "labels: must be keys", ""),
    ("labels={}", "labels.name: required, but missing", ""),
    ("labels.name=3", "labels: its name must be a text, got 3", ""),
    ("labels.name=null", "labels: its name must be a text, got None", ""),
    ("labels.name=[a]", "labels: its name must be a text, got ['a']", ""),
    ("labels.name={a: 1}", "labels: its name must be a text, got {'a': 1}", ""),
    ("labels.name=true", "labels: its name must be a text, got True", ""),
    ("labels.name=smooth", "unknown labels 'smooth'", "Did you mean 'smoothed'?"),
    ("noising.name=renoize", "unknown noising 'renoize'", "Did you mean 'renoise'?"),
    ("objective.name=[smpo]", "objective: its name must be a text", ""),
    ("objective.name=smp", "unknown objective 'smp'", "Did you mean 'smpo'?"),
    ("model.name=sdx", "unknown model.family 'sdx'", "Did you mean 'sdxl'?"),
    ("model.name=1", "model.family: its name must be a text", ""),
    ("model.source=3", "model.source: must be a text, got 3", ""),
    ("model.source=null", "model.source: must be a text, got null", ""),
    ("scorer.name=pickscor", "unknown scorer 'pickscor'", "Did you mean 'pickscore'?"),
    ("scorer.name=[a]", "scorer: its name must be a text", ""),
    ("scoring.also={a: {name: [b]}}", "scorer: its name must be a text", ""),
    ("evaluation.scorers.x.name=clipp", "unknown scorer 'clipp'", "Did you mean 'clip'?"),
    ("training.optimizer.name=adam", "training.optimizer.name: must be 'adamw', ", "Did you mean 'adamw'?"),
    ("training.trackers=[wandbb]", "training.trackers.0: must be", "Did you mean 'wandb'?"),
    ("data.format=jsnl", "data: unknown data.format 'jsnl'", "Did you mean 'jsonl'?"),
    ("generation.dtype=fp16", "generation: unknown dtype 'fp16'", ""),
    ("generation.device=gpu", "generation: device must be auto, cpu, cuda, cuda:0 or the like, got 'gpu'", ""),
    ("scorer.device=cuda:x", "scorer: scorer.device must be auto", ""),
    # ranges
    ("seed=-1", "seed: must be >= 0, got -1", ""),
    ("generation.seed=-1", "generation: guidance_scale and seed must be >= 0", ""),
    ("training.steps=0", "training.steps: must be > 0, got 0", ""),
    ("training.steps=-5", "training.steps: must be > 0, got -5", ""),
    ("training.min_timestep=0", "training.min_timestep: must be >= 1, got 0", ""),
    ("training.max_timestep=100000", "training.max_timestep: must be < 10000, got 100000", ""),
    ("training.optimizer.betas=[0.9, 2]", "training.optimizer: betas must lie in [0, 1), got [0.9, 2.0]", ""),
    ("training.caption_dropout=2", "training.caption_dropout: must be <= 1, got 2", ""),
    ("training.ema_decay=1", "training.ema_decay: must be < 1, got 1", ""),
    ("training.workers=-1", "training.workers: must be >= 0, got -1", ""),
    ("training.lora.rank=0", "training.lora.rank: must be > 0, got 0", ""),
    ("training.tracking.project=''", "training.tracking.project: must be", ""),
    ("cache.resolution=1", "cache.resolution: must be a multiple of 8, got 1", ""),
    ("cache.resolution=0", "cache.resolution: must be >= 8, got 0", ""),
    ("cache.resolution=1000000", "cache.resolution: must be <= 8192, got 1000000", ""),
    ("generation.limit=0", "generation.limit: must be > 0, got 0", ""),
    ("data.max_dropped_fraction=2", "data: max_dropped_fraction must lie in [0, 1], got 2.0", ""),
    ("data.max_rows=0", "data: max_rows must be >= 1, got 0", ""),
    # finite numbers
    *((f"{key}={value}", key.partition(".")[0], word)
      for key in ("training.optimizer.lr", "training.optimizer.weight_decay", "training.optimizer.eps",
                  "training.optimizer.max_grad_norm", "training.lora.alpha", "training.samples.guidance_scale",
                  "generation.guidance_scale", "objective.beta", "objective.gamma", "noising.inversion_cfg")
      for value, word in ((".inf", "inf"), ("nan", "nan"), ("1e400", "inf"))),
    ("training.optimizer.betas=[.nan, 0.9]", "training.optimizer", "betas"),
    ("labels.score_range=[.inf, 3]", "labels.score_range must be a finite number, got inf", ""),
    # places
    ("paths.workdir=~no-such-user/x", "paths.workdir: no such user, got '~no-such-user/x'; write the whole path", ""),
    ("paths.workdir=$NOT_SET/x", "paths.workdir: $NOT_SET is not set in the environment, got '$NOT_SET/x'", ""),
    ("data.source=${EMPTY}/x", "data.source: $EMPTY is empty in the environment", ""),
]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", "/home/someone"), ("SCRATCH", "/scratch"), ("EMPTY", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)


def at(recipe: Recipe, path: str) -> Any:
    """What stands at a dotted key of a resolved recipe."""
    value: Any = recipe
    for part in path.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


@pytest.mark.parametrize(("override", "path", "value"), TAKEN, ids=lambda v: ascii(v)[:50])
def test_taken(override: str, path: str, value: Any) -> None:
    found = at(load_recipe("sd15-smpo", [override]), path)
    assert found == (tuple(value) if isinstance(value, list) else value)
    assert isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize(("override", "start", "further"), REFUSED, ids=lambda v: ascii(v)[:50])
def test_refused(override: str, start: str, further: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("sd15-smpo", [override])
    line = str(caught.value)
    assert line.startswith(start) and further in line and "\n" not in line


def test_there_are_enough_cases_and_none_twice() -> None:
    overrides = [case[0] for case in (*TAKEN, *REFUSED)]
    assert len(overrides) >= 220 and len(set(overrides)) == len(overrides)


def test_the_last_of_two_overrides_of_a_key_wins() -> None:
    assert load_recipe("sd15-smpo", ["seed=1", "seed=2"]).seed == 2


def test_an_alias_in_a_recipe_is_a_copy_that_an_override_changes_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: sd15-smpo\nsampling: null\ngeneration: {guidance_scale: 3, models: &m {a: x}}\n"
                    "evaluation: {scorers: {c: &c {name: clip}, d: *c}}\n")
    recipe = load_recipe(str(path), ["evaluation.scorers.d.dtype=float16"])
    assert recipe.evaluation.scorers["c"]["dtype"] == "float32"
    assert recipe.evaluation.scorers["d"]["dtype"] == "float16"
