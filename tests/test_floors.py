"""The lower bounds of pyproject.toml are true: everything installed at its lowest, the demo's stages run there."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.other_libraries import ROOT, environment, run_in

PROMPTS = [f"a {size} {colour} house on the left, on a blue background" for size in ("small", "large")
           for colour in ("red", "green", "yellow")]
QUICK = [
    "training.steps=2", "training.batch_size=4", "training.micro_batch_size=2", "training.optimizer.warmup_steps=0",
    "sampling.num_inference_steps=2", "generation.num_inference_steps=2", "sampling.prompts=prompts.txt",
    "generation.prompts=prompts.txt", "paths.workdir=run", "training.single_file=float16",
]
NAMES = {"PIL": "pillow", "yaml": "pyyaml"}  # of packages whose import has another name
OPTIONAL = {"datasets", "bitsandbytes"}


def lower_bounds() -> dict[str, str]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)(,<\d[\d.]*)?", line) for line in content]
    assert all(found), content
    return {match[1]: match[2] for match in found if match}


def test_every_import_is_a_dependency() -> None:
    """What comes along with another package today may not tomorrow."""
    lines = [line for path in (ROOT / "src").rglob("*.py") for line in path.read_text().splitlines()]
    modules = {match[1] for line in lines if (match := re.match(r"(?:from|import) ([A-Za-z_]\w*)(?:[ .]|$)", line))}
    installed = metadata.packages_distributions()
    used = {NAMES.get(module, module) for module in modules if module in installed and module not in
            sys.stdlib_module_names} - {"smpo"}
    assert used - OPTIONAL <= set(lower_bounds())


@pytest.mark.slow
def test_the_demo_runs_on_the_lowest_versions(tmp_path: Path) -> None:
    floors = {name: version for name, version in lower_bounds().items() if name != "torch"}
    python = environment("lowest", [f"{name}=={version}" for name, version in floors.items()])
    listed = run_in(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).lower().replace("-", "_")
    for name, version in floors.items():
        assert re.search(rf"^{name.replace('-', '_')}=={re.escape(version)}(\.0)*$", listed, re.MULTILINE), name
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    run_in(python, "-m", "smpo", "run", "tiny-demo", *QUICK, cwd=tmp_path)
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    run_in(python, "-m", "smpo", "export", "run", "again.safetensors", cwd=tmp_path)
    single = next((tmp_path / "run" / "train").glob("*.safetensors"))
    assert single.stat().st_size == pytest.approx((tmp_path / "again.safetensors").stat().st_size, abs=100)
