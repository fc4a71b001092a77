"""Every citation of a document in code, recipes, tests and docs resolves inside this repository.

`METHODS 2.3` is the heading "2.3 ..." of docs/methods.md; `METHODS D13` and `METHODS 18.2.4` are its places marked
`<a id="D13"></a>`. No other document may be cited by a short name: a reader of the repository has only the repository.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("src", "tests", "benchmarks", "docs", "launch", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
KINDS = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".json", ".sh"}
NUMBER = r"(?:D\d+|\d+(?:\.\d+)*)"
CITATION = re.compile(rf"\bMETHODS(?:\.md)?(?:,? sections?)? ({NUMBER}(?:(?:, | and |-){NUMBER})*)")
BARE = re.compile(r"\bMETHODS\b(?! = |\[|\.items|,? default)")  # also "METHODS' doubts", which names no place
FOREIGN = re.compile(  # working papers that lie outside the repository
    r"\b(?:REWARDS|ONLINE|FLOW|PEOPLE|DESIGN|UX|STYLE|FIELD|PACKAGES|FAULTS)(?:\.md\b|,? (?:section|rule|row) ?\w|"
    r" (?:[A-G])?\d+(?:\.\d+)*\b)"
)
OWN = Path(__file__).resolve()


def joined(text: str) -> str:
    """`text` with line breaks, and the comment signs behind them, as single spaces."""
    return re.sub(r"\s*\n[ \t]*(?:#|//)?[ \t]*", " ", text)


def files() -> list[Path]:
    """All text files that may cite, but for this one."""
    found = [path for place in PLACES for path in ([ROOT / place] if (ROOT / place).is_file() else
                                                   sorted((ROOT / place).rglob("*")))]
    return [path for path in found if path.suffix in KINDS and path.resolve() != OWN and path.is_file()]


def cited(text: str) -> list[str]:
    """The places of docs/methods.md that `text` cites: "2.3", "D13" ..."""
    return [place for match in CITATION.finditer(joined(text)) for place in re.findall(NUMBER, match[1])]


def places_of(page: str) -> set[str]:
    """What can be cited: numbers of headings and explicit anchors."""
    return {*re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", page, flags=re.MULTILINE), *re.findall(r'<a id="([\w.]+)"', page)}


def test_citations_are_found_over_line_breaks_and_in_lists():
    text = "# the printed one (METHODS\n# D5, D10,\n# D12), METHODS 2.6, D14 and METHODS.md, sections 4.1 and 18.4)"
    assert cited(text) == ["D5", "D10", "D12", "2.6", "D14", "4.1", "18.4"]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_citation_resolves(path):
    text = path.read_text()
    known = places_of((ROOT / "docs" / "methods.md").read_text())
    assert set(cited(text)) <= known
    foreign = [match[0] for match in FOREIGN.finditer(joined(text))]
    assert not foreign, f"{foreign}: not in the repository; cite docs/methods.md or another page of docs"


@pytest.mark.parametrize("kind", ["src", "tests"])
def test_the_search_finds_what_is_there(kind):
    """A pattern that matches nothing would pass everything above."""
    assert sum(len(cited(path.read_text())) for path in files() if path.is_relative_to(ROOT / kind)) > 40


def test_every_place_of_the_page_is_cited_or_a_section():
    """Places are named once."""
    page = (ROOT / "docs" / "methods.md").read_text()
    anchors = re.findall(r'<a id="([\w.]+)"', page)
    assert len(anchors) == len(set(anchors))
