"""The page over all prompts: complete, self-contained, and small."""

import base64
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.core.errors import ConfigError, DataError
from smpo.evaluation.scores import ImageScores
from smpo.report.browser import write_browser
from smpo.report.image_rows import Evaluated
from smpo.sampling.image_set import ImageSet


@pytest.fixture(scope="module")
def evaluated(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> Evaluated:
    return {name: (sets[name], ImageScores.open(evaluations[name])) for name in sets}


def content_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_every_prompt_is_there_with_all_images_and_scores(evaluated: Evaluated, tmp_path: Path) -> None:
    categories = ["Arts & Crafts" if i < 10 else "Food" for i in range(40)]
    path = write_browser(tmp_path / "p.html", evaluated, baseline="base", model="lighter", categories=categories)
    page = path.read_text()
    content = content_of(page)
    assert content["models"] == ["base", "twin", "lighter"] and len(content["rows"]) == 40
    row = content["rows"][7]
    images, table = evaluated["lighter"]
    assert (row["p"], row["e"], row["c"]) == (images.prompts[7], images.seeds[7], "Arts & Crafts")
    assert row["s"][2] == pytest.approx([float(table.scores[s][7]) for s in table.scores], rel=1e-3)
    assert (tmp_path / row["f"][2]).resolve() == (images.folder / images.files[7]).resolve()
    shown = Image.open(io.BytesIO(base64.b64decode(content["thumbnails"][7][2]))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(images.images(7, 8)[0]))
    assert "<option>Arts &amp; Crafts</option>" in page and not re.search(r"https?://|@import|url\(", page)


def test_a_prompt_cannot_leave_its_place(evaluated: Evaluated, tmp_path: Path) -> None:
    prompts = ("</script><img src=x onerror=alert(1)>",) * 40
    hostile = {name: (dataclasses.replace(images, prompts=prompts), table) for name, (images, table) in
               evaluated.items()}
    page = write_browser(tmp_path / "p.html", hostile, baseline="base", model="lighter").read_text()
    assert "onerror" in page and "<img src=x" not in page and page.count("</script>") == 2
    assert content_of(page)["rows"][0]["p"] == prompts[0] and "Category" not in page


def test_refusals(evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown baseline 'bse'"):
        write_browser(tmp_path / "p.html", evaluated, baseline="bse", model="lighter")
    with pytest.raises(ConfigError, match="unknown model 'lighte'"):
        write_browser(tmp_path / "p.html", evaluated, baseline="base", model="lighte")
    images, table = evaluated["lighter"]
    odd = {**evaluated, "lighter": (dataclasses.replace(images, seeds=(9,) * 40), table)}
    with pytest.raises(DataError, match="'lighter' and 'base' differ in prompts or seeds; generate both alike"):
        write_browser(tmp_path / "p.html", odd, baseline="base", model="lighter")
