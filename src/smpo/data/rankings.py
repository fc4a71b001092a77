"""Makes pairs of tables that rank several images of a prompt, and of annotators' tasks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from smpo.data.entries import Entry
from smpo.data.layouts import LABELS, OLD_NAMES, LayoutFinder
from smpo.data.values import RowProblem, as_name, as_number, malformed, shown

MAX_IMAGES = 64  # of one prompt: 2016 pairs; HPDv2's test set has 9 images, ImageRewardDB up to 9
LISTS = ("image_path", "file_path", "images")
GROUPED = {"prompt_id", "rank"}

Entries = Sequence[Entry]


def pairs_of(entries: Entries) -> tuple[str, list[Entry]] | None:
    """(kind of the table, its pairs as rows with image_0 and image_1), or None if the rows are pairs already.

    The first row that can be read decides which kind it is.
    """
    values = next((entry.values for entry in entries if entry.values), {})
    for fits, name, expand in KINDS:
        if fits(values):
            return name, list(expand(entries))
    return None


def ranks_images(columns: Iterable[str]) -> bool:
    """Whether a table with `columns` ranks images."""
    return any(fits(dict.fromkeys(columns)) for fits, _, _ in KINDS)


def _each(one: Callable[[Mapping[str, Any]], Iterator[tuple[str, dict[str, Any]]]]
          ) -> Callable[[Entries], Iterator[Entry]]:
    """`one`, which makes (place, values) of the pairs of one row, for all rows; a broken row keeps its problem."""
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
    """HPDv2: `prompt`, a list of paths, and of each path human_preference (1 = preferred) or rank (1 = best).

    Also a prompt with a list `images` of two images and any columns of labels.
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
    """A number per image, smaller = better; None if the row has no ranks."""
    for name, sign in (("rank", 1), ("human_preference", -1)):
        value = values.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != count:
            raise malformed(f"{name} is {shown(value)}, expected a list of {count} numbers, one an image")
        numbers = [as_number(number, name=name) for number in value]
        if any(number is None or number != number for number in numbers):
            raise malformed(f"{name} is {shown(value)}, expected {count} numbers")
        return [sign * number for number in numbers if number is not None]
    return None


def _label(rank_0: float, rank_1: float) -> float:
    return 0.5 if rank_0 == rank_1 else float(rank_0 < rank_1)


def _prompt(values: Mapping[str, Any]) -> Any:
    return next((values[name] for name in ("prompt", "caption", "text") if name in values), None)


def _ranked_rows(entries: Entries) -> Iterator[Entry]:
    """ImageRewardDB: an image per row, with `prompt_id` and `rank` (1 = best); all pairs of a prompt's images."""
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
    """A task of Label Studio's JSON export: prompt and images from its data, and the annotators' choices as votes.

    A choice of the tag Pairwise is left or right, in the order of its toName; the two images must have that order.
    """
    data, annotations = values.get("data"), values.get("annotations")
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        raise malformed(f"data is {shown(data)}, expected an object, and annotations a list")
    mapping = LayoutFinder().of(str(name) for name in data)
    if mapping is None:
        raise malformed(f"data has no prompt with two images: {shown(list(data))}")
    fields = mapping.pick(data)
    pair = {name: fields.get(name) for name in ("prompt", "image_0", "image_1", "pair_id")}
    choices = [choice for annotation in annotations for choice in _choices(annotation)]
    if len(choices) == 1:
        pair["preferred"] = choices[0]
    elif choices:
        pair |= {"votes_0": choices.count("left"), "votes_1": choices.count("right")}
    yield "", pair


def _choices(annotation: Any) -> list[str]:
    """The choices of one annotator; none if the task was skipped."""
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
"""(whether a table's first row is of this kind, name of the kind, rows -> pairs)."""
