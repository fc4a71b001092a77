"""The tables of docs/benchmarks.md from the committed JSON of `benchmarks.cpu`.

    python -m benchmarks.page

Rewrites what stands between `<!-- cpu: SECTION -->` and `<!-- end -->`.
"""

import json
import re
from pathlib import Path

from benchmarks import cpu

ROOT = Path(__file__).parent.parent
PAGE, RESULT = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "results" / "cpu.json"
BLOCK = re.compile(r"(<!-- cpu: (?P<section>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page() -> str:
    """The page with its tables made anew."""
    tables = cpu.tables(json.loads(RESULT.read_text()))
    return BLOCK.sub(lambda match: f"{match[1]}{tables[match['section']]}\n{match[3]}", PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
