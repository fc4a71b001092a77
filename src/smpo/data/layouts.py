"""The layouts of pairs in tables: which columns hold the prompt, the two images, and people's choices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smpo.core.checks import check_known, did_you_mean
from smpo.core.errors import ConfigError, DataError

LABELS = ("label_0", "label_1", "preferred", "vote_share_0", "votes_0", "votes_1")
NAMES = {
    "prompt": ("prompt", "caption", "text", "Prompt", "Caption"),
    **{name: (name,) for name in (*LABELS, "has_label")},
    "pair_id": ("pair_id", "ranking_id"),
}
"""Field of a pair -> the columns that may hold it; the first that a table has is read."""

FILE_ENDS = ("", "_file_name", "_path", "_file")  # datasets' imagefolder names its columns of files *_file_name
SHOWN_COLUMNS = 8
RENAMED = ("prompt", "image_0", "image_1", "chosen", "rejected", *LABELS, "has_label", "pair_id")
"""Names that `data.columns` may give to a table's columns."""
OLD_NAMES = {"p_win": "vote_share_0"}
"""Names of columns in smpo 0.1 -> names now."""


@dataclass(frozen=True)
class Layout:
    """How a table holds pairs.

    Attributes:
        name: its name in reports.
        sides: columns of image 0 and image 1.
        first_wins: image 0 is the preferred image; otherwise columns of labels name it.
        names: columns of fields that differ from NAMES; an empty tuple for a field that the layout does not have.
    """

    name: str
    sides: tuple[str, str]
    first_wins: bool = False
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> str:
        """The columns of prompt and images, for a message."""
        return ", ".join((self.columns_of("prompt")[0], *self.sides))

    def columns_of(self, name: str) -> tuple[str, ...]:
        """The columns that may hold the field `name`."""
        if name in ("image_0", "image_1"):
            return tuple(self.sides[int(name[-1])] + end for end in FILE_ENDS)
        return self.names[name] if name in self.names else NAMES[name]


# Rapidata numbers images 1 and 2, so a label "1" would be ambiguous: only votes are read.
RAPIDATA = {"label_0": (), "label_1": (), "preferred": (), "vote_share_0": (),
            "votes_0": ("votes_image1", "weighted_results_image1_preference", "weighted_results_image1"),
            "votes_1": ("votes_image2", "weighted_results_image2_preference", "weighted_results_image2")}

# Sources: docs/data.md, "Layouts". A table has the first layout of which it has a prompt and both images.
LAYOUTS = (
    Layout("Pick-a-Pic", ("jpg_0", "jpg_1"), names={"prompt": ("caption", *NAMES["prompt"])}),
    Layout("TRL", ("chosen", "rejected"), first_wins=True),
    Layout("chosen and rejected images", ("chosen_image", "rejected_image"), first_wins=True),
    Layout("preferred and rejected images", ("preferred_image", "rejected_image"), first_wins=True),
    Layout("pairs", ("image_0", "image_1")),
    Layout("winner and loser images", ("image_w", "image_l"), first_wins=True),
    Layout("winner and loser images", ("jpg_w", "jpg_l"), first_wins=True),
    Layout("win and lose", ("win", "lose"), first_wins=True),
    Layout("winner and loser", ("winner", "loser"), first_wins=True),
    Layout("w and l", ("w", "l"), first_wins=True),
    Layout("ImageReward pairs", ("img_better", "img_worse"), first_wins=True),
    Layout("Rapidata", ("image1", "image2"), names=RAPIDATA),
    Layout("HPDv3", ("path1", "path2"), first_wins=True),
    Layout("pairs", ("image_a", "image_b")),
    Layout("pairs", ("left", "right")),
    Layout("numbered images", ("0", "1")),
)


@dataclass(frozen=True)
class ColumnMap:
    """Which of a table's columns are read as which fields.

    Attributes:
        layout: the layout of the table.
        columns: field -> column, for the fields that the table has.
        ignored: the table's other columns.
    """

    layout: Layout
    columns: Mapping[str, str]
    ignored: tuple[str, ...]

    @property
    def has_labels(self) -> bool:
        """Whether the table names the preferred images, in columns of labels or votes or by the images' columns."""
        votes = {"votes_0", "votes_1"} <= set(self.columns)
        return self.layout.first_wins or votes or bool({"label_0", "preferred", "vote_share_0"} & set(self.columns))

    def pick(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Field -> value of a row."""
        return {name: values.get(column) for name, column in self.columns.items()}

    def describe(self) -> str:
        """Layout, columns read and columns ignored, for people."""
        text = f"{self.layout.name}: {', '.join(self.columns.values())}"
        if not self.ignored:
            return text
        count = f"{len(self.ignored)} column{'s' if len(self.ignored) > 1 else ''} ignored"
        more = ", ..." if len(self.ignored) > SHOWN_COLUMNS else ""
        return f"{text}; {count} ({', '.join(self.ignored[:SHOWN_COLUMNS])}{more})"


class LayoutFinder:
    """Finds the layout of tables from their columns, and keeps the results.

    Args:
        renamed: `data.columns`: field (or chosen, rejected) -> the table's column, which goes before any other.
    """

    def __init__(self, renamed: Mapping[str, str] | None = None) -> None:
        self._renamed = dict(renamed or {})
        self._results: dict[frozenset[str], ColumnMap | None] = {}

    def of(self, columns: Iterable[str]) -> ColumnMap | None:
        """The column map of a table with `columns`, or None if no layout fits."""
        columns = list(columns)
        key = frozenset(columns)
        if key not in self._results:
            self._results[key] = self._match(columns)
        return self._results[key]

    @property
    def used(self) -> list[ColumnMap]:
        """The column maps of all tables seen."""
        return [mapping for mapping in self._results.values() if mapping is not None]

    def describe(self) -> str:
        """The layouts of all tables seen, for people."""
        return " and ".join(dict.fromkeys(mapping.describe() for mapping in self.used))

    def _match(self, columns: list[str]) -> ColumnMap | None:
        own = {column: column for column in columns if column not in self._renamed.values()}
        own |= {name: column for name, column in self._renamed.items() if column in columns}
        for layout in LAYOUTS:
            fields = {name: own[column] for name in dict.fromkeys(("prompt", "image_0", "image_1", *NAMES))
                      if (column := next((c for c in layout.columns_of(name) if c in own), None))}
            if {"prompt", "image_0", "image_1"} <= set(fields):
                return ColumnMap(layout, fields, tuple(c for c in columns if c not in fields.values()))
        return None

    def required(self, columns: Iterable[str], *, source: str) -> ColumnMap:
        """The column map of a table with `columns`.

        Raises:
            DataError: no layout fits, `data.columns` names a missing column, or a column has an old name.
        """
        columns = list(columns)
        self._check_names(columns, source)
        if (mapping := self.of(columns)) is None:
            raise DataError(_no_layout(columns, source))
        return mapping

    def check_rows(self, rows: Iterable[Iterable[str]], *, source: str) -> None:
        """Check a table whose rows may differ; `rows` holds the columns of each row, none for a broken one.

        Raises:
            DataError: no layout fits any row, `data.columns` names a missing column, or a column has an old name.
        """
        filled = [columns for columns in map(list, rows) if columns]
        self._check_names(list(dict.fromkeys(name for columns in filled for name in columns)), source)
        layouts = [self.of(columns) for columns in filled]  # of all rows, for `used`
        if filled and not any(layouts):
            raise DataError(_no_layout(filled[0], source))

    def _check_names(self, columns: Sequence[str], source: str) -> None:
        for name, column in self._renamed.items():
            if column not in columns:
                raise DataError(f"{source} has no column '{column}', which data.columns names as {name}; "
                                f"found: {', '.join(map(str, columns)) or 'none'}.{did_you_mean(column, columns)}")
        for old, new in OLD_NAMES.items():
            if old in columns and old not in self._renamed.values():
                raise DataError(f"{source} has a column '{old}', whose name is {new} since smpo 0.2; rename it, or set "
                                f"data.columns={{{new}: {old}}}")


def check_columns(columns: Iterable[str], required: Iterable[str], *, source: str) -> None:
    """Raise DataError unless `columns` has all `required` ones; the message hints at columns with similar names."""
    columns, required = list(columns), list(required)
    missing = [name for name in required if name not in columns]
    if missing:
        spare = [name for name in columns if name not in required]
        hints = "".join(dict.fromkeys(did_you_mean(name, spare) for name in missing))
        raise DataError(f"{source} lacks {', '.join(missing)}; required columns: {', '.join(required)}; "
                        f"found: {', '.join(columns) or 'none'}.{hints} Rename the columns")


def check_renames(columns: Mapping[str, str] | None) -> None:
    """Raise ConfigError unless the keys of `data.columns`, here `columns`, are names of fields."""
    for name in columns or {}:
        if name in OLD_NAMES:
            raise ConfigError(f"data.columns.{name}: its name is {OLD_NAMES[name]} since smpo 0.2; rename the key")
        check_known(name, RENAMED, what="field in data.columns")


def _no_layout(columns: list[str], source: str) -> str:
    """The message that no layout fits `columns`: the nearest layout, and the columns that are missing for it."""
    def missing(layout: Layout) -> list[str]:
        return [name for name in ("prompt", "image_0", "image_1")
                if not set(layout.columns_of(name)) & set(columns)]

    nearest = min(LAYOUTS, key=lambda layout: (len(missing(layout)), layout.columns_of("prompt")[0] not in columns))
    lacking = [nearest.columns_of(name)[0] for name in missing(nearest)]
    spare = [column for column in columns if column not in nearest.columns.split(", ")]
    hints = "".join(dict.fromkeys(did_you_mean(name, spare) for name in lacking))
    return (f"{source} has no layout that is known; found: {', '.join(map(str, columns))[:200] or 'none'}; nearest: "
            f"{nearest.name} ({nearest.columns}), lacks {', '.join(lacking)}.{hints} Rename with data.columns, e.g. "
            f"data.columns={{{lacking[0] if lacking[0] in RENAMED else 'prompt'}: your_column}}; "
            "the layouts: docs/data.md")
