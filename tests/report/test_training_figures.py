"""Figures of a training run."""

from pathlib import Path

import numpy as np
import pytest

from smpo.report.theme import save
from smpo.report.training_figures import label_distribution, running_mean, training_curves


def test_training_curves_have_one_panel_per_known_column(metrics: Path, tmp_path: Path) -> None:
    shown = [ax for ax in training_curves(metrics).axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == [
        "Loss", "Implicit accuracy", "Preference logit", "Error against reference", "Gradient norm", "Learning rate",
        "Pairs per second",
    ]
    few = tmp_path / "metrics.jsonl"
    few.write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n')
    ax, = (ax for ax in training_curves(few).axes if ax.get_visible())
    assert list(ax.lines[0].get_ydata()) == [0.7, 0.6]


def test_running_mean_keeps_a_line_and_skips_gaps() -> None:
    """A straight line is its own centred mean away from the ends; of 60 points the window is 3."""
    line = np.arange(60.0)
    np.testing.assert_allclose(running_mean(line)[1:-1], line[1:-1])
    line[30] = np.nan
    assert running_mean(line)[30] == pytest.approx(30) and running_mean(line)[29] == pytest.approx(28.5)
    short = np.array([1.0, 5.0])
    assert running_mean(short) is short


def test_label_quantiles_are_shown(tmp_path: Path) -> None:
    figure = label_distribution(np.linspace(0.5, 0.9, 101), np.linspace(0, 0.8, 101))
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["5%: 0.52", "50%: 0.7", "95%: 0.88"]
    assert [line.get_xdata()[0] for line in right.lines] == pytest.approx([0.04, 0.4, 0.76])
    save(figure, tmp_path / "a.png")
    save(label_distribution(np.linspace(0.5, 0.9, 101), np.linspace(0, 0.8, 101)), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
