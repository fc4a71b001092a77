"""Tables whose rows are no pairs: several ranked images a row or a prompt, and annotators' tasks. They become pairs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from smpo.data.entries import Entry
from smpo.data.layouts import LABELS, OLD_NAMES, Readings
from smpo.data.values import RowProblem, as_name, as_number, malformed, shown

MAX_IMAGES = 64  # of one prompt: 2016 pairs; HPDv2's test set has 9 images, ImageRewardDB up to 9
LISTS = ("image_path", "file_path", "images")
GROUPED = {"prompt_id", "rank"}

Entries = Sequence[Entry]


def pairs_of(entries: Entries) -> tuple[str, list[Entry]] | None:
    """(what the table was understood as, its pairs as rows with image_0 and image_1), or None where its rows are pairs.

    The first row that has values decides which it is.
    """
    values = next((entry.values for entry in entries if entry.values), {})
    for fits, name, expand in KINDS:
        if fits(values):
            return name, list(expand(entries))
    return None


def ranks_images(columns: Iterable[str]) -> bool:
    """Whether a table with `columns` ranks images, several a row or one."""
    return any(fits(dict.fromkeys(columns)) for fits, _, _ in KINDS)


def _each(one: Callable[[Mapping[str, Any]], Iterator[tuple[str, dict[str, Any]]]]
          ) -> Callable[[Entries], Iterator[Entry]]:
    """An expansion of rows that know nothing of each other; a row that it cannot take is passed on with the reason."""
    def expand(entries: Entries) -> Iterator[Entry]:
        for entry in entries:
            if entry.values is None:
                yield entry
                continue
            try:
                for name, values in one(entry.values):
                    yield Entry(f"{entry.place}{name}", values)
            except RowProblem as problem:
                yield Entry(entry.place, None, problem.detail)
    return expand


def _ranked_list(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """HPDv2: `prompt`, a list of paths, and human_preference (1 = preferred) or rank (1 = best) of each.

    Or a prompt with a list `images` of two and any of the label columns.
    """
    column = next((name for name in LISTS if name in values), LISTS[0])
    images = values.get(column)
    if not isinstance(images, list) or not 2 <= len(images) <= MAX_IMAGES:
        raise malformed(f"{column} is {shown(images)}, expected a list of 2 to {MAX_IMAGES} images")
    ranks = _ranks(values, len(images))
    if ranks is None and len(images) > 2:
        raise malformed(f"{column} has {len(images)} images and nothing ranks them")
    others = {name: values[name] for name in (*LABELS, *OLD_NAMES, "has_label", "pair_id") if name in values}
    for first, second in combinations(range(len(images)), 2):
        label = {} if ranks is None else {"label_0": _label(ranks[first], ranks[second])}
        name = "" if len(images) == 2 else f" images {first} and {second}"
        yield name, {"prompt": _prompt(values), "image_0": images[first], "image_1": images[second], **others, **label}


def _ranks(values: Mapping[str, Any], count: int) -> list[float] | None:
    """A number an image, smaller = better; None where the row has none."""
    for name, sign in (("rank", 1), ("human_preference", -1)):
        found = values.get(name)
        if found is None:
            continue
        if not isinstance(found, list) or len(found) != count:
            raise malformed(f"{name} is {shown(found)}, expected a list of {count} numbers, one an image")
        numbers = [as_number(number, name=name) for number in found]
        if any(number is None or number != number for number in numbers):
            raise malformed(f"{name} is {shown(found)}, expected {count} numbers")
        return [sign * number for number in numbers if number is not None]
    return None


def _label(rank_0: float, rank_1: float) -> float:
    return 0.5 if rank_0 == rank_1 else float(rank_0 < rank_1)


def _prompt(values: Mapping[str, Any]) -> Any:
    return next((values[name] for name in ("prompt", "caption", "text") if name in values), None)


def _ranked_rows(entries: Entries) -> Iterator[Entry]:
    """ImageRewardDB: an image a row, with `prompt_id` and `rank` (1 = best); the pairs of each prompt's images."""
    groups: dict[str, list[tuple[Entry, Mapping[str, Any], float]]] = {}
    for entry in entries:
        values = entry.values or {}
        try:
            if entry.values is None:
                raise malformed(entry.problem)
            name, rank = as_name(values.get("prompt_id"), name="prompt_id"), as_number(values.get("rank"), name="rank")
            if name is None or rank is None or rank != rank:
                raise malformed(f"prompt_id is {shown(values.get('prompt_id'))} and rank {shown(values.get('rank'))}, "
                                "expected both")
            if len(groups.setdefault(name, [])) >= MAX_IMAGES:
                raise malformed(f"prompt_id {shown(name)} has more than {MAX_IMAGES} images")
            groups[name].append((entry, values, rank))
        except RowProblem as problem:
            yield Entry(entry.place, None, problem.detail)
    for members in groups.values():
        for (one, values, rank), (other, others, other_rank) in combinations(members, 2):
            place = f"{one.place} and {other.place}"
            if _prompt(values) != _prompt(others):
                yield Entry(place, None, f"one prompt_id, and two prompts: {shown(_prompt(others))}")
                continue
            column = "image_path" if "image_path" in values else "image"
            yield Entry(place, {"prompt": _prompt(values), "image_0": values.get(column),
                                "image_1": others.get(column), "label_0": _label(rank, other_rank)})


def _task(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A task of Label Studio's JSON export: what its data hold, and the annotators' Pairwise choices as votes.

    The choice is left or right, in the order of the tag's toName; the data's two images must be in that order.
    """
    data, annotations = values.get("data"), values.get("annotations")
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        raise malformed(f"data is {shown(data)}, expected an object, and annotations a list")
    reading = Readings().of(str(name) for name in data)
    if reading is None:
        raise malformed(f"data has no prompt with two images: {shown(list(data))}")
    picked = reading.pick(data)
    pair = {name: picked.get(name) for name in ("prompt", "image_0", "image_1", "pair_id")}
    choices = [choice for annotation in annotations for choice in _choices(annotation)]
    said: dict[str, Any] = {"preferred": choices[0]} if len(choices) == 1 else {}
    if len(choices) > 1:
        said = {"votes_0": choices.count("left"), "votes_1": choices.count("right")}
    yield "", pair | said


def _choices(annotation: Any) -> list[str]:
    """What one annotator chose; nothing where the task was skipped."""
    if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
        raise malformed(f"an annotation is {shown(annotation)}, expected an object with a list result")
    if annotation.get("was_cancelled"):
        return []
    results = [item for item in annotation["result"] if isinstance(item, Mapping) and item.get("type") == "pairwise"]
    values = [item.get("value") for item in results]
    chosen: list[Any] = [value.get("selected") if isinstance(value, Mapping) else None for value in values]
    if wrong := [choice for choice in chosen if choice not in ("left", "right")]:
        raise malformed(f"a choice is {shown(wrong[0])}, expected left or right")
    return chosen


KINDS: tuple[tuple[Callable[[Mapping[str, Any]], bool], str, Callable[[Entries], Iterator[Entry]]], ...] = (
    (lambda row: {"data", "annotations"} <= set(row), "Label Studio: data, annotations", _each(_task)),
    (lambda row: set(row) >= GROUPED, "ImageRewardDB: prompt, prompt_id, image_path, rank", _ranked_rows),
    (lambda row: bool({"human_preference", "rank"} & set(row)) and bool(set(LISTS) & set(row)),
     "HPDv2: prompt, paths, rank or human_preference", _each(_ranked_list)),
    (lambda row: isinstance(row.get("images"), list) and not {"chosen", "rejected"} <= set(row),
     "a list of two images: prompt, images", _each(_ranked_list)),
)
"""(whether a table's first row is of this kind, what it is called, rows -> pairs)."""
