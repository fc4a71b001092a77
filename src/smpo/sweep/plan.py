"""A sweep file and its runs: every row at every point of the grid for every seed.

Texts of the file may hold placeholders: `{seed}`, `{seed+1}`, a name of `vary` such as `{noise}`, `{seed_folder}` (of
all runs of the seed), `{folder}` (of this run), `{row}` (the last part of that folder, which finds the same row in
another sweep's folder) and `{run:ROW}` (folder of another row's run of the same seed and point, which runs before).
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from smpo.core.checks import check_known
from smpo.core.errors import ConfigError
from smpo.core.names import BASE, check_names
from smpo.core.registry import one_line
from smpo.core.sections import Section
from smpo.pipeline.config import PathsSection, Recipe, load_recipe
from smpo.pipeline.reading import parse_override, read_mapping
from smpo.pipeline.recipe_files import sweep_path

ARTEFACTS = tuple(name for name in PathsSection.model_fields if name not in ("workdir", "store"))
SEED = re.compile(r"\{seed(\+\d+)?\}")  # when it is the whole text, the value is a number
PLACEHOLDER = re.compile(r"\{(seed\+(?P<offset>\d+)|run:(?P<row>[^{}]+)|(?P<name>[A-Za-z_]\w*))\}")
Commands = tuple[tuple[str | int | float, ...], ...]


class RowSection(Section):
    """One row of the table: the keys that it changes, and the paper's numbers for it."""

    recipe: str | None = Field(None, description="instead of the sweep's")
    set: dict[str, Any] = Field({}, description="recipe key -> value")
    own: tuple[str, ...] = Field((), description="artefacts that this row does not share")
    commands: Commands = Field((), description="run in order before the row's stages")
    seeds: tuple[int, ...] | None = Field(None, description="instead of the sweep's")
    grid: dict[str, tuple[Any, ...]] | None = Field(None, description="instead of the sweep's")
    vary: dict[str, tuple[Any, ...]] | None = Field(None, description="instead of the sweep's")
    x: float | None = Field(None, description="place on the x axis of the report's plot")
    series: str | None = Field(None, description="curve of the report's plot")
    paper: dict[str, str] = Field({}, description="column -> the paper's number for this row")


class SweepReportSection(Section):
    """Contents of the report."""

    title: str = Field("", description="title of the page; by default the sweep's name")
    note: str = Field("", description="a paragraph under the title")
    statistic: Literal["mean", "median"] = Field("mean", description="statistic of a model's scores over the prompts")
    beside: Literal["wins", "mean"] = Field("wins", description="second column of every scorer: win-rates, or means")
    times_100: tuple[str, ...] = Field((), description="scorers shown times 100, as the paper does with cosines")
    paper: dict[str, str] = Field({}, description="column -> the paper's number for the base")
    wins_of: str | None = Field(
        None, description="row whose win-rate over each other row is shown; by default each row's over the base"
    )
    x: str | None = Field(None, description="name of the rows' x, or a key of the grid: plots curves over it")

    @model_validator(mode="before")
    @classmethod
    def _old_key(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "ours" in values:
            raise ValueError("ours is named wins_of since smpo 0.2; rename it")
        return values


class SweepFile(Section):
    """The content of a sweep file."""

    name: str
    folder: str | None = Field(None, description="folder of all runs; sweeps of one folder share seeds and equal rows")
    recipe: str = Field(description="a recipe file, or the name of a shipped one")
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    set: dict[str, Any] = Field({}, description="recipe key -> value, for every run")
    share: tuple[str, ...] = Field(
        ("sample", "pairs", "score", "cache"), description="artefacts that a seed's runs share"
    )
    each_seed: Commands = Field((), description="commands to run once for each seed, before its runs")
    rows: dict[str, RowSection] = Field({}, description="name -> row; by default one row that changes nothing")
    grid: dict[str, tuple[Any, ...]] = Field({}, description="recipe key -> values; rows run with all combinations")
    vary: dict[str, tuple[Any, ...]] = Field({}, description="placeholder in texts -> values, combined like the grid")
    keep_checkpoints: bool = Field(False, description="of finished runs; they are three times as large as the models")
    report: SweepReportSection = SweepReportSection()

    @model_validator(mode="after")
    def _known_names(self) -> "SweepFile":
        for row in (*self.rows.values(), RowSection(own=self.share)):
            for artefact in row.own:
                check_known(artefact, ARTEFACTS, what="artefact to share or own")
        check_names([self.name], what="name: sweep")
        slugs = [slug(name).lower() for name in self.rows]
        for name in self.rows:
            check_names([slug(name)], what=f"row {name!r}: folder", reserved=[BASE])
        alike = [name for name in self.rows if slugs.count(slug(name).lower()) > 1]
        if alike:
            raise ConfigError(f"rows {', '.join(alike)} would share the folder {slug(alike[0])}; rename them")
        if self.report.wins_of is not None:
            check_known(self.report.wins_of, self.rows, what="row of report.wins_of")
        return self


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        row: name of its row, with the point of the grid.
        seed: seed of the run.
        folder: folder of its artefacts.
        settings: recipe key -> value, where it differs from the recipe.
        source: file or name of the recipe.
        overrides: overrides with which the recipe is loaded.
        commands: commands to run before its stages.
        after: folders of the runs that must be finished before.
        curve: (series, x) in the report's plot; None where it has no place there.
    """

    row: str
    seed: int
    folder: Path
    settings: dict[str, Any]
    source: str
    overrides: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    after: tuple[Path, ...]
    curve: tuple[str, float] | None

    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.source, self.overrides)


@dataclass(frozen=True)
class Sweep:
    """A sweep and the folder of its runs."""

    file: SweepFile
    folder: Path

    @property
    def rows_path(self) -> Path:
        """The file of results: one JSON object for each finished run."""
        return self.folder / f"{self.file.name}.jsonl"

    def seed_folder(self, seed: int) -> Path:
        """Folder of the artefacts that the runs of a seed share."""
        return self.folder / f"seed-{seed}"

    def runs(self) -> list[PlannedRun]:
        """Every run, seed by seed."""
        seeds = dict.fromkeys(seed for row in self._rows.values() for seed in row.seeds or self.file.seeds)
        return [
            self._planned(name, row, point, seed) for seed in seeds for name, row in self._rows.items()
            if seed in (row.seeds or self.file.seeds)
            for point in points_of(self._axes(row))
        ]

    def each_seed(self, seed: int) -> tuple[tuple[str, ...], ...]:
        """The commands to run once for a seed."""
        names = {"seed": seed, "seed_folder": self.seed_folder(seed), "run": {}}
        return tuple(tuple(str(filled(part, names)[0]) for part in command) for command in self.file.each_seed)

    @property
    def _rows(self) -> dict[str, RowSection]:
        return self.file.rows or {self.file.name: RowSection()}

    def _planned(self, name: str, row: RowSection, point: Mapping[str, Any], seed: int) -> PlannedRun:
        full = self._full_name(name, point)
        shared, folder = self.seed_folder(seed), self.seed_folder(seed) / slug(full)
        others = self._others(point, seed)
        varied = _either(row.vary, self.file.vary)
        names = {"seed": seed, "seed_folder": shared, "folder": folder, "row": folder.name, "run": others,
                 **{key: point[key] for key in varied}}
        settings = {**row.set, **{key: value for key, value in point.items() if key not in varied}}
        values, needed = {}, set()
        for key, value in {"seed": seed, **self.file.set, **settings}.items():
            values[key], used = filled(value, names)
            needed |= used
        homes = {a: shared if a in self.file.share and a not in row.own else folder for a in ARTEFACTS}
        if homes["invert"] == folder:  # the default; left out so that results of 0.1.0 stay valid
            del homes["invert"]
        paths = {f"paths.{a}": str(home / a) for a, home in homes.items()}
        paths |= {"paths.workdir": str(folder), "paths.store": str(shared / "store"), "name": slug(full)}
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in {**paths, **values}.items())
        commands = tuple(tuple(str(filled(part, names)[0]) for part in command) for command in row.commands)
        after = tuple(Path(others[row]) for row in sorted(needed))
        return PlannedRun(full, seed, folder, settings, row.recipe or self.file.recipe, overrides, commands, after,
                          self._curve(name, row, point))

    def _axes(self, row: RowSection) -> dict[str, tuple[Any, ...]]:
        return {**_either(row.grid, self.file.grid), **_either(row.vary, self.file.vary)}

    def _others(self, point: Mapping[str, Any], seed: int) -> dict[str, str]:
        """Row -> folder of its run of this seed at this point; an axis that a row lacks is ignored."""
        folders = {}
        for name, row in self._rows.items():
            axes = self._axes(row)
            own = {key: value for key, value in point.items() if key in axes}
            if seed in (row.seeds or self.file.seeds) and own in points_of(axes):
                folders[name] = str(self.seed_folder(seed) / slug(self._full_name(name, own)))
        return folders

    def _full_name(self, row: str, point: Mapping[str, Any]) -> str:
        return ", ".join([*([row] if self.file.rows or not point else []), *point_name(point)])

    def _curve(self, name: str, row: RowSection, point: Mapping[str, Any]) -> tuple[str, float] | None:
        key = self.file.report.x
        if key is None:
            return None
        rest = point_name({k: v for k, v in point.items() if k != key})
        x = point.get(key, row.x)
        return None if x is None else (", ".join([row.series or name, *rest]), float(x))


def load_sweep(source: str, out: Path | None = None, changes: Sequence[str] = ()) -> Sweep:
    """The sweep of a YAML file or of a shipped sweep's name.

    Args:
        source: the file, or the name.
        out: folder of its runs; None is the file's, or else runs/NAME.
        changes: further overrides of the recipe, for every run, such as training.steps=10.

    Raises:
        ConfigError: no such file, invalid YAML, an unknown key, or a value of the wrong kind.
    """
    path = sweep_path(source)
    try:
        file = SweepFile.model_validate(read_mapping(path, where=source))
    except ValidationError as error:
        raise ConfigError(f"{source}: {one_line(error, section='')}") from error
    file = file.model_copy(update={"set": {**file.set, **dict(map(parse_override, changes))}})
    return Sweep(file, out or Path(file.folder or f"runs/{file.name}"))


def filled(value: Any, names: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """`value` with every placeholder in its texts replaced, and the rows whose runs it names."""
    rows: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        if match["row"]:
            check_known(match["row"], names["run"], what="row of this seed and point in {run:...}")
            rows.add(match["row"])
            return names["run"][match["row"]]
        if match["offset"]:
            return str(names["seed"] + int(match["offset"]))
        check_known(match["name"], names, what="placeholder")
        return str(names[match["name"]])

    def walk(part: Any) -> Any:
        if isinstance(part, str):
            text = PLACEHOLDER.sub(replace, part)
            return int(text) if SEED.fullmatch(part) else text
        if isinstance(part, Mapping):
            return {key: walk(item) for key, item in part.items()}
        return [walk(item) for item in part] if isinstance(part, list | tuple) else part

    return walk(value), rows


def _either(own: Mapping[str, Any] | None, common: Mapping[str, Any]) -> Mapping[str, Any]:
    return common if own is None else own


def points_of(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the grid's values; an empty grid has one point, which changes nothing."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def point_name(point: Mapping[str, Any]) -> list[str]:
    """A grid point's values by the last part of their keys: "gamma=5", "beta=1000"."""
    return [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in point.items()]


def slug(name: str) -> str:
    """`name` as the name of a folder and of a recipe."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-")
