"""Figures of a comparison: true to its numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.evaluation.compare import Comparison
from smpo.evaluation.scores import ImageScores
from smpo.report.comparison_figures import attribute_chart, before_after_grid, change_chart, model_grid, win_rate_chart
from smpo.report.image_rows import ImageRow, image_rows
from smpo.report.theme import DARK, LIGHT
from smpo.sampling.image_set import ImageSet


@pytest.fixture(scope="module")
def rows(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> tuple[ImageRow, ...]:
    return image_rows({name: (sets[name], ImageScores.open(evaluations[name])) for name in sets}, limit=3)


def test_win_bars_add_up_and_begin_with_the_wins(comparison: Comparison) -> None:
    ax = win_rate_chart(comparison).axes[0]
    assert len(ax.patches) == 3 * 6
    for place, (scorer, model) in enumerate((s, m) for s in comparison.units for m in ("twin", "lighter")):
        widths = [patch.get_width() for patch in ax.patches[3 * place : 3 * place + 3]]
        assert sum(widths) == pytest.approx(100)
        assert widths[0] == pytest.approx(100 * comparison.pairing(model, scorer).win_rate.share_won)
    assert any(list(line.get_xdata()) == [50, 50] for line in ax.lines)


def test_change_chart_fills_only_the_training_reward(comparison: Comparison) -> None:
    marks = [line for line in change_chart(comparison).axes[0].lines if line.get_marker() != "None"]
    filled = [mark.get_markerfacecolor() != LIGHT.page for mark in marks]
    assert filled == [True, True, False, False, False, False]
    assert marks[1].get_xdata()[0] == comparison.pairing("lighter", "brightness").shift.value


def test_attribute_chart_shows_every_model_and_attribute(comparison: Comparison) -> None:
    ax = attribute_chart(comparison, "verifier", theme=DARK).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["light  (n = 40)", "square  (n = 8)"]
    assert len(ax.lines) == 2 * 2 * 3


def test_grid_shows_both_images_with_prompt_and_scores(rows: tuple[ImageRow, ...]) -> None:
    figure = before_after_grid(rows, ("base", "lighter"), scorer="brightness")
    assert len(figure.axes) == 6
    before, after = (rows[0].scores[name]["brightness"] for name in ("base", "lighter"))
    assert [ax.get_xlabel() for ax in figure.axes[:2]] == [f"base  {before:.4g}", f"lighter  {after:.4g}"]
    image = np.asarray(Image.open(rows[0].files["lighter"].path))
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), image)


def test_model_grid_marks_the_best_of_each_row(rows: tuple[ImageRow, ...]) -> None:
    models = ["base", "twin", "lighter"]
    figure = model_grid(rows, models, scorer="brightness")
    assert len(figure.axes) == 9 and [ax.get_title() for ax in figure.axes[:3]] == models
    for row, axes in zip(rows, np.reshape(figure.axes, (3, 3)), strict=True):
        scores = [row.scores[name]["brightness"] for name in models]
        bold = [ax.xaxis.label.get_fontweight() == "bold" for ax in axes]
        assert bold == [score == max(scores) for score in scores]
