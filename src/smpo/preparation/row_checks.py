"""The checks that a raw pair must pass to get into a pair set."""

import math
import re
from dataclasses import dataclass

from smpo.data.images import ImageError, content_uid, decode_image
from smpo.data.records import RawPair
from smpo.preparation.options import PairOptions

CHOICES = ("human_tie", "excluded_caption", "narrow_image")
"""Reasons to drop a row that follow from the options. All other reasons are defects of the source (docs/data.md)."""


@dataclass(frozen=True)
class CheckedPair:
    """A raw pair with (width, height) of its upright images in px, or with the reason why it is dropped."""

    raw: RawPair
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    reason: str = ""
    detail: str = ""


def check_pair(raw: RawPair, options: PairOptions) -> CheckedPair:
    """`raw` with the sizes of its images, or with the first reason to drop it; images are decoded last."""
    reason, detail = raw.problem or _caption_problem(raw, options) or _label_problem(raw, options) or ("", "")
    if not reason and raw.image_0 == raw.image_1:
        reason, detail = "identical_images", f"both images are {content_uid(raw.image_0)}"
    if reason:
        return CheckedPair(raw, reason=reason, detail=detail)
    sizes = []
    for side, data in enumerate((raw.image_0, raw.image_1)):
        try:
            sizes.append(decode_image(data).size)
        except ImageError as error:
            return CheckedPair(raw, reason=error.reason, detail=f"image {side}: {error}")
        width, height = sizes[-1]
        if max(width, height) > options.max_aspect * min(width, height):
            return CheckedPair(raw, reason="narrow_image", detail=f"image {side} has {width} x {height} px, more than "
                               f"max_aspect {options.max_aspect:g}")
    return CheckedPair(raw, sizes=(sizes[0], sizes[1]))


def _caption_problem(raw: RawPair, options: PairOptions) -> tuple[str, str] | None:
    if not raw.caption.strip():
        return "empty_caption", f"caption is {raw.caption!r}"
    for word in options.exclude_words:
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", raw.caption, re.IGNORECASE):
            return "excluded_caption", f"caption contains {word!r}"
    return None


def _label_problem(raw: RawPair, options: PairOptions) -> tuple[str, str] | None:
    if raw.vote_share_0 is not None and not 0 <= raw.vote_share_0 <= 1:
        return "invalid_label", f"vote_share_0 is {raw.vote_share_0}, expected a share of votes in [0, 1]"
    if math.isnan(raw.human_label):
        return ("missing_label", "label_0 is empty or NaN") if options.labelled else None
    if raw.human_label not in (0.0, 0.5, 1.0):
        return "invalid_label", f"label_0 is {raw.label_0}, expected 0, 0.5 or 1"
    if options.drop_human_ties and raw.human_label == 0.5 and raw.vote_share_0 in (None, 0.5):
        return "human_tie", "vote_share_0 is 0.5" if math.isnan(raw.label_0) else "label_0 is 0.5"
    return None
