"""docs/benchmarks.md tells what the committed JSON tells."""

import re

from benchmarks import cpu, gpu, page


def test_the_tables_are_those_of_the_committed_measurement() -> None:
    text = page.PAGE.read_text()
    assert page.page() == text, "run python -m benchmarks.page"
    assert {match["section"] for match in page.BLOCK.finditer(text)} == set(cpu.SECTIONS)


def test_every_section_of_the_gpu_suite_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", page.PAGE.read_text(), flags=re.MULTILINE))
    assert explained == {*gpu.SECTIONS, "matmul", "scoring"}
