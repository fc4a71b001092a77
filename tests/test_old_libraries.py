"""What is written opens in the diffusers and transformers of 2024, with the pictures of today's."""

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
DRAW = ROOT / "tests" / "programs" / "draw.py"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_old_libraries_draw_the_same_pictures(family: str, tmp_path: Path) -> None:
    """Of the embedded model, of a folder as training writes it from a base of today, of its single file.

    Measured: largest difference 0 for sd and for sdxl; one grey level would be seen.
    """
    old, embedded = environment("old", OLD), weights_folder(f"tiny-{family}")
    model = FAMILIES.build({"name": family, "source": str(embedded)})
    trained = model.load_unet()
    trained.conv_in.weight.data *= 1.01
    saved_today = tmp_path / "today"
    model.pipeline(trained).save_pretrained(saved_today)  # flattened names, tokenizer.json alone
    written, file = tmp_path / "written", tmp_path / "one.safetensors"
    FAMILIES.build({"name": family, "source": str(saved_today)}).save_pipeline(trained, written)
    export(written, file, precision="float32", title="one")
    for number, (kind, source) in enumerate((("folder", embedded), ("folder", written), ("file", file))):
        pictures = []
        for name, python in (("old", old), ("new", Path(sys.executable))):
            out = tmp_path / f"{name}-{number}.npy"
            printed = run_in(python, DRAW, family, kind, source, out, cwd=tmp_path)
            assert "newly initialized" not in printed and "not expected" not in printed, printed
            pictures.append(np.load(out))
        assert pictures[0].std() > 0.05
        assert np.abs(pictures[0] - pictures[1]).max() < LEVEL, source
