"""Images of several models side by side."""

import dataclasses
from pathlib import Path

import pytest

from smpo.core.errors import DataError
from smpo.evaluation.scores import ImageScores
from smpo.report.image_rows import image_rows
from smpo.sampling.image_set import ImageSet


def test_rows_are_at_equal_distances(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> None:
    evaluated = {name: (sets[name], ImageScores.open(evaluations[name])) for name in ("base", "lighter")}
    rows = image_rows(evaluated, limit=4)
    assert [row.index for row in rows] == [0, 10, 20, 30]
    assert rows[1].files["lighter"].path == sets["lighter"].folder / "images/00010.png"
    gaps = [rows[1].gap(scorer, "lighter", "base") for scorer in ("darkness", "brightness")]
    assert gaps[0] == pytest.approx(-gaps[1]) and gaps[1] != 0
    assert len(image_rows(evaluated)) == 40
    images, scores = evaluated["lighter"]
    with pytest.raises(DataError, match="'lighter' and 'base' differ in prompts or seeds; generate both alike"):
        image_rows({**evaluated, "lighter": (dataclasses.replace(images, seeds=(9,) * 40), scores)})
