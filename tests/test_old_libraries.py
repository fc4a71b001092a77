"""Written models open in the diffusers and transformers of 2024, and generate the same images there."""

import sys
from pathlib import Path

import numpy as np
import pytest

from smpo.models import FAMILIES
from smpo.models.export import export
from smpo.tiny.folders import weights_folder
from tests.other_libraries import ROOT, environment, run_in

OLD = (
    "diffusers==0.30.3", "transformers==4.44.2", "huggingface_hub==0.24.7", "tokenizers==0.19.1", "accelerate==0.34.2",
    "peft==0.12.0", "safetensors==0.4.5", "numpy==1.26.4", "pillow>=10.3",
)
LEVEL = 1 / 255
GENERATE = ROOT / "tests" / "programs" / "generate.py"


def sources(family: str, folder: Path) -> list[Path]:
    """The embedded model, a folder as training writes it from a base of today, and its single file."""
    embedded, saved_today = weights_folder(f"tiny-{family}"), folder / f"{family}-today"
    model = FAMILIES.build({"name": family, "source": str(embedded)})
    trained = model.load_denoiser()
    trained.conv_in.weight.data *= 1.01
    model.pipeline(trained).save_pretrained(saved_today)  # flattened names, tokenizer.json alone
    written, file = folder / f"{family}-written", folder / f"{family}.safetensors"
    FAMILIES.build({"name": family, "source": str(saved_today)}).save_pipeline(trained, written)
    export(written, file, precision="float32", title="one")
    return [embedded, written, file]


@pytest.mark.slow
def test_old_libraries_generate_the_same_images(tmp_path: Path) -> None:
    """Measured: largest difference 0 for all six; one grey level would be seen."""
    given = [(family, source) for family in ("sd", "sdxl") for source in sources(family, tmp_path)]
    pythons = {"old": environment("old", OLD), "new": Path(sys.executable)}
    for name, python in pythons.items():
        (tmp_path / name).mkdir()
        printed = run_in(python, GENERATE, tmp_path / name, *(word for pair in given for word in pair), cwd=tmp_path)
        assert "newly initialized" not in printed and "not expected" not in printed, printed
    for number, (family, source) in enumerate(given):
        old, new = (np.load(tmp_path / name / f"{number}.npy") for name in pythons)
        assert old.std() > 0.05
        assert np.abs(old - new).max() < LEVEL, (family, source, np.abs(old - new).max())
