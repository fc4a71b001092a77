"""Wheel and sdist: what is in them, and that the wheel alone runs from another folder."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from smpo.tiny.prompts import sample_prompts

ROOT = Path(__file__).parents[1]
SMALL = [
    "training.steps=1", "training.batch_size=2", "training.micro_batch_size=2", "training.optimizer.warmup_steps=0",
    "sampling.num_inference_steps=2", "generation.num_inference_steps=2", "training.trackers=[]",
]


def files_of(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder with the wheel and the sdist, built from a copy: a build leaves files beside its sources."""
    tree, out = tmp_path_factory.mktemp("tree") / "smpo", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "runs", "site", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)],
        check=True, capture_output=True, timeout=300,
    )
    return out


@pytest.fixture(scope="module")
def python(dist, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; every other package is this environment's."""
    env = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True, timeout=100)
    python = env / "bin" / "python"
    packages = env / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # the .pth files in there are not read
    wheel = next(dist.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True, timeout=300,
    )
    return python


def run(python: Path, *words: str, cwd: Path) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python.with_name("smpo")), *words], cwd=cwd, env={**kept, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=580, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_metadata_names_licence_and_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"], project["readme"]) == ("Apache-2.0", ["LICENSE"], "README.md")
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text and len(text) == 11358
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], "Apache-2.0")
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_the_licence(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        (licence,) = (name for name in names if name.endswith("licenses/LICENSE"))
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
        head = email.message_from_bytes(wheel.read(metadata))
    assert (head["License-Expression"], head["License-File"]) == ("Apache-2.0", "LICENSE")
    assert {name.removeprefix("smpo/") for name in names if name.startswith("smpo/")} == files_of(ROOT / "src" / "smpo")


@pytest.mark.slow
def test_the_sdist_holds_what_a_build_and_a_reader_need(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {f"src/smpo/{name}" for name in files_of(ROOT / "src" / "smpo")} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "docs/index.md"} <= names
    assert {"launch/fsdp2-offload.yaml", "examples/tiny_world/README.md", "examples/tiny_world/train_base.py"} <= names


@pytest.mark.slow
def test_the_installed_wheel_runs_from_an_empty_folder(python, tmp_path):
    where = subprocess.run(
        [str(python), "-P", "-c", "import smpo; print(smpo.__file__)"], cwd=tmp_path, check=True, text=True,
        capture_output=True, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, timeout=60,
    ).stdout
    assert Path(where).is_relative_to(python.parents[1])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(python, "--version", cwd=tmp_path).strip() == version
    assert "tiny-demo" in run(python, "show", cwd=tmp_path)
    assert "Noising: renoise" in run(python, "show", "sdxl-smpo", cwd=tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(sample_prompts(4, seed=0, split="train")))
    (tmp_path / "test.txt").write_text("\n".join(sample_prompts(2, seed=0, split="heldout")))
    run(python, "run", "tiny-demo", *SMALL, "sampling.prompts=train.txt", "generation.prompts=test.txt", cwd=tmp_path)
    assert (tmp_path / "runs/smpo/report/report.html").read_text().startswith("<!")
