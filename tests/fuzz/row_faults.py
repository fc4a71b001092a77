"""Values that spoil a row of a pair set, and what comes of the row."""

import math
from dataclasses import dataclass
from typing import Any

from tests.fuzz.kept import ANY, MALFORMED

MISSING = "missing_image"
BAD_IMAGE = f"{MISSING}|{MALFORMED}|undecodable_image"
BAD_LABEL = f"invalid_label|{MALFORMED}"
NO_LABEL = f"missing_label|{MALFORMED}"
TIE = "human_tie"
NUM_SOUND = 3
HUGE = 10**400


@dataclass(frozen=True)
class Fault:
    """Values that replace those of a sound row, and what comes of the row.

    Attributes:
        changes: key -> value; DROP takes the key out.
        outcome: reasons it is dropped for, or "first", "second": it is kept, and that image wins; "none": no winner.
        source: a public thread.
    """

    changes: dict[str, Any]
    outcome: str
    source: str = ""


DROP = object()
WON, LOST, NEITHER = "first", "second", "none"

CHOSEN: tuple[Fault, ...] = (  # rows of {"prompt", "chosen", "rejected"}
    Fault({"label_0": 0.5}, TIE),
    Fault({"label_0": 0}, MALFORMED),
    Fault({"label_0": 1}, WON),
    Fault({"label_0": None}, WON),
    Fault({"preferred": 1}, MALFORMED),
    Fault({"preferred": 0}, WON),
    Fault({"label_0": "tie"}, MALFORMED),
    Fault({"label_0": [1]}, MALFORMED),
    Fault({"preferred": [0]}, MALFORMED),
    Fault({"label_0": 0.2}, BAD_LABEL),
    Fault({"vote_share_0": 0.5}, f"{TIE}|{WON}"),
    Fault({"vote_share_0": "x"}, BAD_LABEL),
    Fault({"vote_share_0": 2}, BAD_LABEL),
    Fault({"vote_share_0": [0.5]}, BAD_LABEL),
    Fault({"votes_0": 3, "votes_1": 1}, WON),
    Fault({"votes_0": HUGE, "votes_1": 1}, BAD_LABEL),
    Fault({"votes_0": "a", "votes_1": "b"}, BAD_LABEL),
    Fault({"votes_0": -3, "votes_1": 1}, BAD_LABEL),
    Fault({"prompt": None}, f"empty_caption|{MALFORMED}"),
    Fault({"prompt": ""}, "empty_caption"),
    Fault({"prompt": " \t\n "}, "empty_caption"),
    Fault({"prompt": 5}, MALFORMED),
    Fault({"prompt": ["a"]}, MALFORMED),
    Fault({"prompt": {"a": 1}}, MALFORMED),
    Fault({"prompt": True}, MALFORMED),
    Fault({"prompt": "\ud800"}, MALFORMED),
    Fault({"prompt": "a \udcff b"}, MALFORMED),
    Fault({"prompt": DROP}, f"empty_caption|{MALFORMED}"),
    Fault({"chosen": DROP}, f"{MALFORMED}|{MISSING}"),
    Fault({"rejected": DROP}, f"{MALFORMED}|{MISSING}"),
    Fault({"chosen": None}, BAD_IMAGE),
    Fault({"rejected": None}, BAD_IMAGE),
    Fault({"chosen": 5}, BAD_IMAGE),
    Fault({"chosen": []}, BAD_IMAGE),
    Fault({"rejected": {}}, BAD_IMAGE),
    Fault({"chosen": True}, BAD_IMAGE),
    Fault({"chosen": ""}, BAD_IMAGE),
    Fault({"chosen": "."}, BAD_IMAGE),
    Fault({"chosen": ".."}, BAD_IMAGE),
    Fault({"chosen": "nowhere.png"}, MISSING),
    Fault({"chosen": "pairs.jsonl/x"}, BAD_IMAGE),
    Fault({"chosen": "https://x.invalid/a.png"}, BAD_IMAGE, "https://github.com/huggingface/datasets/issues/6777"),
    Fault({"chosen": "s3://bucket/a.png"}, BAD_IMAGE),
    Fault({"chosen": "a\x00b.png"}, BAD_IMAGE),
    Fault({"chosen": "x" * 5000}, BAD_IMAGE),
    Fault({"chosen": "/etc/passwd"}, f"{ANY}"),
    Fault({"chosen": "/dev/zero"}, BAD_IMAGE),
    Fault({"chosen": "/dev/null"}, BAD_IMAGE),
    Fault({"chosen": "\ud800.png"}, BAD_IMAGE),
    Fault({"chosen": "~/x.png"}, BAD_IMAGE),
    Fault({"chosen": ["a.png", "b.png"]}, BAD_IMAGE),
    Fault({"rejected": "same"}, "identical_images"),
    Fault({"chosen": "data:image/png;base64,!!!"}, BAD_IMAGE),
    Fault({"chosen": "data:text/html,<b>"}, BAD_IMAGE),
    Fault({"chosen": {"bytes": None, "path": None}}, BAD_IMAGE),
    Fault({"pair_id": None}, WON),
    Fault({"pair_id": ""}, WON),
    Fault({"pair_id": 5}, WON),
    Fault({"pair_id": [1]}, f"{MALFORMED}|{WON}"),
    Fault({"pair_id": {"a": 1}}, f"{MALFORMED}|{WON}"),
    Fault({"pair_id": "\ud800"}, f"{MALFORMED}|{WON}"),
    Fault({"extra": HUGE}, WON),
    Fault({"extra": {"deep": [[[1]]]}}, WON),
    Fault({"images": ["x"], "score": None}, WON, "https://github.com/axolotl-ai-cloud/axolotl/issues/2415"),
)
LABELLED: tuple[Fault, ...] = (  # rows of {"caption", "image_0", "image_1", "label_0": 1}
    Fault({"label_0": 0}, LOST),
    Fault({"label_0": 1.0}, WON),
    Fault({"label_0": 0.5}, TIE),
    Fault({"label_0": None}, NO_LABEL),
    Fault({"label_0": DROP}, NO_LABEL),
    Fault({"label_0": math.nan}, NO_LABEL),
    Fault({"label_0": math.inf}, BAD_LABEL),
    Fault({"label_0": 2}, BAD_LABEL),
    Fault({"label_0": -1}, BAD_LABEL),
    Fault({"label_0": 0.3}, BAD_LABEL),
    Fault({"label_0": "win"}, BAD_LABEL),
    Fault({"label_0": "left"}, BAD_LABEL),
    Fault({"label_0": [1, 0]}, BAD_LABEL),
    Fault({"label_0": {}}, BAD_LABEL),
    Fault({"label_0": HUGE}, BAD_LABEL),
    Fault({"label_0": 1e-320}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": 0}, WON),
    Fault({"label_0": DROP, "preferred": 1}, LOST),
    Fault({"label_0": DROP, "preferred": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": "first"}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": [0]}, BAD_LABEL),
    Fault({"label_0": DROP, "preferred": {}}, BAD_LABEL),
    Fault({"label_0": 1, "preferred": 1}, BAD_LABEL),
    Fault({"label_0": 0, "preferred": 0}, BAD_LABEL),
    Fault({"label_0": 1, "preferred": 0}, WON),
    Fault({"label_0": DROP, "vote_share_0": 0.8}, WON),
    Fault({"label_0": DROP, "vote_share_0": 0.2}, LOST),
    Fault({"label_0": DROP, "vote_share_0": 0.5}, TIE),
    Fault({"label_0": DROP, "vote_share_0": 1.5}, BAD_LABEL),
    Fault({"label_0": DROP, "vote_share_0": -0.1}, BAD_LABEL),
    Fault({"label_0": DROP, "vote_share_0": math.nan}, f"{BAD_LABEL}|missing_label"),
    Fault({"label_0": DROP, "vote_share_0": math.inf}, BAD_LABEL),
    Fault({"label_0": DROP, "vote_share_0": HUGE}, BAD_LABEL),
    Fault({"label_0": DROP, "vote_share_0": "most"}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": 1, "votes_1": 3}, LOST),
    Fault({"label_0": DROP, "votes_0": 0, "votes_1": 0}, NO_LABEL),
    Fault({"label_0": DROP, "votes_0": 2, "votes_1": 2}, TIE),
    Fault({"label_0": DROP, "votes_0": 2}, f"{NO_LABEL}|invalid_label"),
    Fault({"label_0": DROP, "votes_0": -1, "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": HUGE, "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": [1], "votes_1": 2}, BAD_LABEL),
    Fault({"label_0": DROP, "votes_0": math.nan, "votes_1": 2}, f"{NO_LABEL}|invalid_label"),
    Fault({"label_0": 1, "has_label": False}, NO_LABEL),
    Fault({"label_0": 1, "has_label": 0}, NO_LABEL),
    Fault({"label_0": 1, "has_label": "False"}, NO_LABEL),
    Fault({"label_0": 1, "has_label": True}, WON),
    Fault({"label_0": 1, "has_label": 1}, WON),
    Fault({"label_0": 1, "has_label": None}, f"{WON}|missing_label"),
    Fault({"label_0": 1, "has_label": "maybe"}, f"{MALFORMED}"),
    Fault({"image_1": "same"}, "identical_images"),
    Fault({"image_0": None}, BAD_IMAGE),
    Fault({"image_1": 3}, BAD_IMAGE),
    Fault({"caption": None}, f"empty_caption|{MALFORMED}"),
    Fault({"caption": "caf\u00e9 \U0001f600 \u202e"}, WON),
    Fault({"caption": "x" * 20000}, WON),
    Fault({"caption": "a\nb"}, WON),
    Fault({"caption": "<b>[/red] %s {x}"}, WON),
    Fault({"caption": math.nan}, f"{MALFORMED}|empty_caption"),
)
LINES: tuple[tuple[bytes, str], ...] = (  # whole lines of a jsonl file -> the reason they are dropped for
    (b"{", MALFORMED),
    (b"[1, 2]", MALFORMED),
    (b"null", MALFORMED),
    (b'"text"', MALFORMED),
    (b"5", MALFORMED),
    (b"NaN", MALFORMED),
    (b"{}", f"{MALFORMED}|empty_caption|{MISSING}"),
    (b"{'prompt': 'single quotes'}", MALFORMED),
    (b'{"prompt": "a", }', MALFORMED),
    (b"\xff\xfe", MALFORMED),
    ('{"prompt": "caf\u00e9"}'.encode("latin-1"), MALFORMED),
    (b"<html></html>", MALFORMED),
    (b"[" * 5000 + b"]" * 5000, MALFORMED),
    (b'{"a": ' * 3000 + b"1" + b"}" * 3000, MALFORMED),
    (b"# comment", MALFORMED),
    (b'{"seed": ' + b"9" * 6000 + b"}", MALFORMED),
    (b"\x00\x00\x00", MALFORMED),
    (b'{"prompt": "a"} {"prompt": "b"}', MALFORMED),
    (b"version https://git-lfs.github.com/spec/v1", MALFORMED),
    (b"<<<<<<< HEAD", MALFORMED),
    (b"...", MALFORMED),
)
