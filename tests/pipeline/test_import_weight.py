"""What is only read or printed imports no torch: configurations, `show`, every dry run but that of `train`, help."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers")
CALL = "import sys\nfrom smpo.cli import main\nsys.argv = {argv!r}\ntry:\n    main()\nexcept SystemExit as end:\n" \
       "    assert not end.code, end.code\n"
REPORT = "\nimport sys\nprint('HEAVY', [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
STAGES = ("sample", "pairs", "score", "label", "cache", "invert", "generate", "evaluate", "report", "audit", "run")


def heavy_modules(code: str) -> str:
    """What of HEAVY a process has imported that ran `code`."""
    process = subprocess.run(
        [sys.executable, "-c", code + REPORT.format(heavy=HEAVY)], capture_output=True, text=True, check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stderr.splitlines()[-1]


@pytest.mark.parametrize("module", [
    "smpo", "smpo.cli", "smpo.pipeline.config", "smpo.sweep.plan", "smpo.rewards", "smpo.models", "smpo.labels",
    "smpo.noising", "smpo.objectives",
])
def test_reading_modules_import_no_torch(module: str) -> None:
    assert heavy_modules(f"import {module}") == "HEAVY []"


@pytest.mark.parametrize("arguments", [
    "--help", "--version", "show", "show sd15-smpo", "show sdxl-mapo-released", "show tiny-table1",
    "sweep tiny-table1 --dry-run", *(f"{stage} tiny-demo --dry-run" for stage in STAGES),
    "run sd15-smpo-chained noising.name=released --dry-run",
])
def test_commands_that_only_print_import_no_torch(arguments: str) -> None:
    assert heavy_modules(CALL.format(argv=["smpo", *arguments.split()])) == "HEAVY []"


def test_the_check_itself_sees_torch() -> None:
    assert heavy_modules("import torch") == "HEAVY ['torch']"


def test_every_member_of_a_seam_is_read_without_torch() -> None:
    """Unknown keys and defaults of every member are known without it, so any recipe loads fast."""
    assert heavy_modules(
        "from smpo.pipeline.config import SEAMS\nfrom smpo.rewards import SCORERS\n"
        "for registry in (*SEAMS.values(), SCORERS):\n    for name in registry:\n        registry.fields(name)\n"
    ) == "HEAVY []"
