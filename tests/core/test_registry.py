"""Every table of names: entries resolve, errors are exact and one line."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import smpo
from smpo.core.errors import ConfigError
from smpo.core.registry import Registry
from smpo.data import FORMATS
from smpo.labels import LABELS
from smpo.models import FAMILIES
from smpo.noising import NOISINGS
from smpo.objectives import OBJECTIVES
from smpo.rewards import SCORERS

BUILT = (FAMILIES, LABELS, NOISINGS, OBJECTIVES, SCORERS)
ENTRIES = [(table, name) for table in (*BUILT, FORMATS) for name in table]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A member for these tests; `fixed` is no setting."""

    beta: float
    steps: int = 3
    mode: str = "slow"
    fixed: int = dataclasses.field(default=7, init=False)

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ConfigError(f"beta must be >= 0, got {self.beta}")


TABLE = Registry("thing", {"sample": f"{__name__}:Sample", "other": "no.such.module:Nothing"})


@pytest.mark.parametrize(("table", "name"), ENTRIES, ids=lambda value: value if isinstance(value, str) else value.kind)
def test_every_entry_resolves_to_a_documented_class(table: Registry, name: str) -> None:
    member = table.resolve(name)
    assert inspect.isclass(member) and "__doc__" in vars(member)
    assert len(inspect.getdoc(member)) > 20 and not inspect.getdoc(member).startswith(f"{member.__name__}(")


@pytest.mark.parametrize("table", BUILT, ids=lambda table: table.kind)
def test_members_built_from_settings_are_frozen_keyword_only_dataclasses(table: Registry) -> None:
    for name in table:
        member = table.resolve(name)
        assert dataclasses.is_dataclass(member) and member.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(member) if field.init)


@pytest.mark.parametrize("table", [LABELS, NOISINGS, OBJECTIVES], ids=lambda table: table.kind)
def test_members_with_defaults_build_and_show_their_settings(table: Registry) -> None:
    for name in table:
        resolved = table.resolved({"name": name})
        assert resolved["name"] == name and table.build(resolved) == table.build({"name": name})


def test_every_module_imports() -> None:
    for module in pkgutil.walk_packages(smpo.__path__, prefix="smpo."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def error_of(settings: dict) -> str:
    with pytest.raises(ConfigError) as error:
        TABLE.build(settings)
    return str(error.value)


@pytest.mark.parametrize(("settings", "message"), [
    ({"beta": 1}, "thing.name: required, but missing; known: sample, other"),
    ({"name": "sampel", "beta": 1}, "unknown thing 'sampel'; known: sample, other. Did you mean 'sample'?"),
    ({"name": "zzz", "beta": 1}, "unknown thing 'zzz'; known: sample, other."),
    ({"name": "sample", "betta": 1}, "thing.betta: unknown key; known: name, beta, steps, mode. Did you mean 'beta'?"),
    ({"name": "sample", "beta": 1, "fixed": 2},
     "thing.fixed: unknown key; known: name, beta, steps, mode."),
    ({"name": "sample"}, "thing.beta: required, but missing"),
    ({"name": "sample", "beta": "much"},
     "thing.beta: must be a number, got 'much'"),
    ({"name": "sample", "beta": 1, "steps": 2.5},
     "thing.steps: must be a whole number, got 2.5"),
    ({"name": "sample", "beta": 1, "mode": 3}, "thing.mode: must be a text, got 3; put it in quotes"),
    ({"name": "sample", "beta": -1}, "thing: beta must be >= 0, got -1.0"),
])
def test_unusable_settings_are_one_line_errors(settings: dict, message: str) -> None:
    assert error_of(settings) == message


def test_building_completes_the_defaults_and_leaves_the_settings_alone() -> None:
    settings = {"name": "sample", "beta": 2}
    assert TABLE.build(settings) == Sample(beta=2.0)
    assert settings == {"name": "sample", "beta": 2}
    assert TABLE.resolved({"name": "sample", "beta": 2}) == {
        "name": "sample", "beta": 2.0, "steps": 3, "mode": "slow", "fixed": 7}


def test_a_table_lists_without_importing() -> None:
    assert list(TABLE) == ["sample", "other"] and len(TABLE) == 2 and TABLE["other"] == "no.such.module:Nothing"
    with pytest.raises(ModuleNotFoundError):
        TABLE.resolve("other")


def test_nearest_names_in_the_real_tables() -> None:
    for table, typo, hint in ((OBJECTIVES, "smp", "smpo"), (NOISINGS, "renoize", "renoise"), (FAMILIES, "sdx", "sdxl"),
                              (LABELS, "smooth", "smoothed"), (SCORERS, "pickscor", "pickscore")):
        with pytest.raises(ConfigError, match=rf"^unknown {table.kind} '{typo}'; known: .* Did you mean '{hint}'\?$"):
            table.resolve(typo)
