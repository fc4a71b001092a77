"""What `smpo pairs` must make of a source: which pairs it keeps, who wins them, and why it drops the others."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpo.data.pair_set import PairSet
from tests.data.pictures import png
from tests.fuzz.case import Made
from tests.fuzz.running import Result

MALFORMED = "malformed_row"
ANY = "*"  # some reason code; which one is the owner's choice
Pair = tuple[str, str, str]
"""(prompt, digest of the winner's bytes, digest of the loser's); winner and loser in order of the digests for none."""


def image(number: int) -> bytes:
    """A small sound PNG, another for each number."""
    return png(number)


def digest(data: bytes) -> str:
    """Name of an image in a `Pair`."""
    return hashlib.sha256(data).hexdigest()[:12]


def pair(prompt: str, winner: bytes, loser: bytes) -> Pair:
    """An expected pair."""
    return prompt, digest(winner), digest(loser)


@dataclass(frozen=True)
class Kept:
    """`pairs` keeps just these pairs and drops the other rows for these reasons (alternatives joined by "|")."""

    pairs: Sequence[Pair]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """See `Expectation`."""
        last = results[-1]
        if last.code:
            return [f"refused, and must keep {len(self.pairs)} pairs: {last.error or last.err[-200:]}"]
        folder = made.cwd / "out" / "pairs"
        found, reasons = found_pairs(folder), found_reasons(folder)
        wrong = []
        if Counter(found) != Counter(self.pairs):
            wrong.append(f"keeps {found}, and must keep {list(self.pairs)}; dropped {dict(reasons)}")
        return wrong + self._wrong_reasons(Counter(reasons))

    def _wrong_reasons(self, reasons: Counter) -> list[str]:
        wanted = [allowed for allowed, count in self.dropped.items() for _ in range(count)]
        fits = len(wanted) == reasons.total() and _fit(sorted(wanted, key=lambda one: (one == ANY, len(one))), reasons)
        return [] if fits else [f"drops {dict(reasons)}, and must drop {dict(self.dropped)}"]


def _fit(wanted: Sequence[str], reasons: Counter) -> bool:
    """Whether the reasons can be given to the wanted alternatives, one to each."""
    if not wanted:
        return True
    first, *rest = wanted
    fitting = [one for one in reasons if reasons[one] and (first == ANY or one in first.split("|"))]
    return any(_fit(rest, reasons - Counter([one])) for one in fitting)


def found_pairs(folder: Path) -> list[Pair]:
    """The pairs of an artefact, read through the package's own reader."""
    pairs = PairSet.open(folder)
    found = []
    for one, label in zip(pairs.iter_images(), pairs.human_labels.tolist(), strict=True):
        sides = [digest(one.image_0), digest(one.image_1)]
        ordered = sides if label == 1 else sides[::-1] if label == 0 else sorted(sides)
        found.append((one.caption, *ordered))
    return found


def found_reasons(folder: Path) -> Counter:
    """Reason code -> rows that were dropped for it."""
    lines = (folder / "dropped.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["reason"] for line in lines)


def command(source: Path | str, **options: Any) -> list[str]:
    """`smpo pairs` of the world's recipe with another source, into out/; any number of rows may be defective."""
    given = [f"data.{key}={json.dumps(value)}" for key, value in {"max_dropped_fraction": 1.0, **options}.items()]
    return ["pairs", "recipe.yaml", f"data.source={source}", "paths.workdir=out", *given]
