"""Converts a row of a table to a pair, or to a broken row with the reason."""

import math
from collections.abc import Mapping
from typing import Any

from smpo.data.images import content_uid
from smpo.data.layouts import ColumnMap
from smpo.data.records import RawPair, broken_row
from smpo.data.row_images import ImageFiles
from smpo.data.values import RowProblem, as_flag, as_name, as_number, as_prompt, is_missing, malformed, plain, shown

WORDS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "0.5": 0.5, "image_0": 0.0, "image_1": 1.0, "left": 0.0,
         "right": 1.0, "tie": 0.5}
"""Text in `preferred` -> index of the preferred image, or 0.5 for a tie."""

SHARE_TOLERANCE = 0.01  # between vote_share_0, which may be rounded to two digits, and the counts


def raw_pair(row: int, values: Mapping[str, Any], mapping: ColumnMap, images: ImageFiles, *, place: str) -> RawPair:
    """The pair in the table row `values`, or a broken row if a value cannot be used.

    Args:
        row: position in the source, from 0.
        values: column -> value, of any type.
        mapping: which columns are which fields.
        images: reader of image files.
        place: place of the row, for people: file, and line or key.
    """
    fields, names, pair_id = mapping.pick(values), mapping.columns, f"row-{row}"
    try:
        pair_id = as_name(fields.get("pair_id"), name=names.get("pair_id", "")) or pair_id
        caption = as_prompt(fields["prompt"], name=names["prompt"])
        label, share = judgement(fields, names, first_wins=mapping.layout.first_wins)
        image_0, image_1 = (images.read(fields[side], name=names[side]) for side in ("image_0", "image_1"))
    except RowProblem as problem:
        return broken_row(row, problem.reason, problem.detail, pair_id=pair_id, place=place)
    return RawPair(row, pair_id, caption, image_0, image_1, label, content_uid(image_0), content_uid(image_1),
                   vote_share_0=share, place=place)


def judgement(fields: Mapping[str, Any], names: Mapping[str, str], *, first_wins: bool) -> tuple[float, float | None]:
    """People's judgement of a pair: (label_0 or NaN, share of votes for image 0 or None).

    `label_0` and `preferred` are one person's choice; without them, so are the columns `chosen` and `rejected`. Votes
    are the choices of several people. One person may disagree with a majority, but not with all.

    Args:
        fields: field -> value.
        names: field -> the table's column, for messages.
        first_wins: the columns of the images name image 0 as the preferred one.

    Raises:
        RowProblem: a value is of the wrong type, or two of them contradict each other.
    """
    share = _share(fields, names)
    if as_flag(fields.get("has_label"), name=names.get("has_label", "has_label")) is False:
        return math.nan, share
    label = _label(fields, names)
    if first_wins and label == 0.0:
        which = names.get("label_0") or names.get("preferred") or names.get("label_1")
        raise malformed(f"{which} says that {names['image_1']} is preferred, its name that {names['image_0']} is")
    if first_wins and math.isnan(label):
        label = 1.0
    if share is not None and {label, share} == {0.0, 1.0}:
        raise malformed(f"the label says that image {int(share)} is preferred, and every vote the contrary")
    return label, share


def _label(fields: Mapping[str, Any], names: Mapping[str, str]) -> float:
    """label_0 of a row, from label_0, label_1 and preferred, which must agree; NaN without them."""
    labels: dict[str, float] = {}
    for name in ("label_0", "label_1"):
        number = as_number(fields.get(name), name=names.get(name, name))
        if number is not None and not math.isnan(number):
            labels[names.get(name, name)] = number if name == "label_0" else 1 - number
    preferred = _preferred(fields.get("preferred"), names.get("preferred", "preferred"))
    if preferred is not None:
        labels[names.get("preferred", "preferred")] = 1 - preferred
    if len(set(labels.values())) > 1:
        given = ", ".join(f"{column} is {shown(fields[name])}" for name, column in names.items() if column in labels)
        raise malformed(f"the labels contradict each other: {given}")
    return next(iter(labels.values()), math.nan)


def _preferred(value: Any, name: str) -> float | None:
    """Index of the preferred image, or 0.5 for a tie; None if the value is missing."""
    value = plain(value)
    if is_missing(value):
        return None
    if isinstance(value, str) and value.strip().casefold() in WORDS:
        return WORDS[value.strip().casefold()]
    number = None if isinstance(value, str | bool) else as_number(value, name=name)  # True names neither image
    if number in (0, 0.5, 1):
        return number
    raise malformed(f"{name} is {shown(value)}, expected 0, 1, left, right or tie")


def _share(fields: Mapping[str, Any], names: Mapping[str, str]) -> float | None:
    """`vote_share_0`, else votes_0 / (votes_0 + votes_1); None without votes."""
    share = as_number(fields.get("vote_share_0"), name=names.get("vote_share_0", "vote_share_0"))
    counts = [as_number(fields.get(name), name=names.get(name, name)) for name in ("votes_0", "votes_1")]
    for name, count in zip(("votes_0", "votes_1"), counts, strict=True):
        if count is not None and not 0 <= count < math.inf:
            raise RowProblem("invalid_label", f"{names.get(name, name)} is {shown(fields[name])}, "
                             "expected a number of votes >= 0")
    votes_0, votes_1 = counts
    if votes_0 is None or votes_1 is None:
        if share is None and (votes_0 or votes_1):
            given = "votes_0" if votes_1 is None else "votes_1"
            raise malformed(f"{names.get(given, given)} is {shown(fields[given])}, and the other count is missing")
        return share
    total = votes_0 + votes_1
    if not total or math.isinf(total):
        return share
    if share is not None and abs(share - votes_0 / total) > SHARE_TOLERANCE:
        given = f"{names['vote_share_0']} is {shown(fields['vote_share_0'])}"
        raise malformed(f"{given}, and the votes say {votes_0 / total:.4g}")
    return votes_0 / total if share is None else share
