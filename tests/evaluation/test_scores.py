"""Score tables: what is stored, what is kept of an interrupted run, what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from smpo.core.errors import ConfigError, DataError, StaleError
from smpo.evaluation.image_sets import compare_evaluated
from smpo.evaluation.scores import ImageScores, evaluate_images
from smpo.rewards.options import ScoringOptions
from smpo.sampling.image_set import ImageSet
from tests.image_sets import Brightness, Pixels, Verifier


def test_table_has_the_documented_columns(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> None:
    table = pq.read_table(evaluations["base"] / "scores.parquet")
    assert table.column_names == ["index", "prompt", "seed", "file", "brightness", "darkness", "verifier"]
    assert table.schema.field("brightness").type == pa.float32()
    expected = [np.asarray(image).mean() for image in sets["base"].images()]
    np.testing.assert_allclose(table["brightness"].to_numpy(), expected, rtol=1e-6)
    assert table["prompt"].to_pylist() == list(sets["base"].prompts)


def test_opened_table_equals_the_scores(sets: dict[str, ImageSet], evaluations: dict[str, Path]) -> None:
    table = ImageScores.open(evaluations["lighter"])
    assert (table.prompts, table.seeds, table.files) == (
        sets["lighter"].prompts, sets["lighter"].seeds, sets["lighter"].files
    )
    assert table.units == {"brightness": "grey levels", "darkness": "grey levels", "verifier": "grey levels"}
    np.testing.assert_array_equal(table.scores["darkness"], -table.scores["brightness"])
    assert set(table.details) == {"verifier"}
    pixels = torch.stack([Pixels()(image) for image in sets["lighter"].images()])
    assert table.details["verifier"] == tuple(Verifier().verdicts(pixels, sets["lighter"].prompts))


def test_scores_do_not_depend_on_the_batch_size(
    sets: dict[str, ImageSet], evaluations: dict[str, Path], tmp_path: Path
) -> None:
    scorers = {"brightness": Brightness(), "darkness": Brightness("darkness", -1.0), "verifier": Verifier()}
    report = evaluate_images(sets["base"], scorers, tmp_path / "e", options=ScoringOptions(batch_size=7, workers=2))
    assert (tmp_path / "e/scores.parquet").read_bytes() == (evaluations["base"] / "scores.parquet").read_bytes()
    assert report.fingerprint == ImageScores.open(evaluations["base"]).fingerprint
    assert not (tmp_path / "e/parts").exists()


def test_second_run_calls_no_scorer(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    first = evaluate_images(
        sets["base"], {"brightness": Brightness()}, tmp_path / "e", options=ScoringOptions(block_size=16),
        progress=lambda *call: calls.append(call),
    )
    assert [call[1:] for call in calls] == [(done, 40) for done in (0, 16, 16, 32, 32, 40)]  # batch, block, ...
    assert calls[0][0] == "brightness" and re.fullmatch(r"brightness, [\d.e+]+ images/s", calls[-1][0])
    again = Brightness()
    second = evaluate_images(sets["base"], {"brightness": again}, tmp_path / "e")
    assert (first.skipped, first.scored, second.skipped, second.scored, again.calls) == (
        False, ("brightness",), True, (), 0
    )
    assert first.fingerprint == second.fingerprint


def test_interrupted_run_keeps_the_finished_blocks_of_all_scorers(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    """Interrupted in the second of three blocks, by the second of two scorers."""

    class Broken(Brightness):
        def score(self, inputs, prompts):
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().score(inputs, prompts)

    options = ScoringOptions(block_size=16)

    with pytest.raises(KeyboardInterrupt):
        scorers = {"brightness": Brightness(), "darkness": Broken("darkness", -1.0)}
        evaluate_images(sets["base"], scorers, tmp_path / "e", options=options)
    with pytest.raises(DataError, match="is unfinished; run `smpo evaluate` again to complete it"):
        ImageScores.open(tmp_path / "e")
    again, darkness = Brightness(), Brightness("darkness", -1.0)
    report = evaluate_images(
        sets["base"], {"brightness": again, "darkness": darkness}, tmp_path / "e", options=options
    )
    assert (again.calls, darkness.calls, report.scored) == (2, 2, ("brightness", "darkness"))
    table = ImageScores.open(tmp_path / "e")
    np.testing.assert_array_equal(table.scores["darkness"], -table.scores["brightness"])
    assert len(table.scores["darkness"]) == 40 and not (tmp_path / "e" / "parts").exists()


def test_other_scorers_or_images_are_stale(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    evaluate_images(sets["base"], {"brightness": Brightness()}, tmp_path / "e")
    with pytest.raises(StaleError, match=r"scorers\.brightness\.sign=1\.0 \(now -1\.0\)"):
        evaluate_images(sets["base"], {"brightness": Brightness(sign=-1.0)}, tmp_path / "e")
    with pytest.raises(StaleError, match=r"input\.images="):
        evaluate_images(sets["lighter"], {"brightness": Brightness()}, tmp_path / "e")


@pytest.mark.parametrize(("scores", "message"), [
    (torch.zeros(40, 1), "scorer 'bad' returned shape (40, 1), expected (40,); correct it"),
    (torch.tensor([0.0] * 39 + [float("nan")]), "scorer 'bad' gave nan for image 39; check its weights and dtype "
     "(float16 overflows above 65504)"),
])
def test_unusable_scores_are_refused(
    sets: dict[str, ImageSet], tmp_path: Path, scores: torch.Tensor, message: str
) -> None:
    class Bad(Brightness):
        def score(self, inputs, prompts):
            return scores

    with pytest.raises(DataError) as refused:
        evaluate_images(sets["base"], {"bad": Bad()}, tmp_path / "e", options=ScoringOptions(batch_size=64))
    assert str(refused.value) == message


def test_unusable_names_are_refused(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no scorers were given; name at least one"):
        evaluate_images(sets["base"], {}, tmp_path / "e")
    for name, message in (("prompt", "the name 'prompt' is taken"), ("a/b", "cannot be the name of a folder")):
        with pytest.raises(ConfigError, match=f"scorer '{name}':? {message}"):
            evaluate_images(sets["base"], {name: Brightness()}, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_stored_column_is_found_by_every_evaluation_of_the_images(
    sets: dict[str, ImageSet], evaluations: dict[str, Path], tmp_path: Path
) -> None:
    """A second recipe scores nothing, a further scorer only itself; other images are other columns."""
    store = tmp_path / "store"
    evaluate_images(sets["base"], {"brightness": Brightness()}, tmp_path / "one", store=store)
    again, darkness, verifier = Brightness(), Brightness("darkness", -1.0), Verifier()
    scorers = {"brightness": again, "darkness": darkness, "verifier": verifier}
    report = evaluate_images(sets["base"], scorers, tmp_path / "two", store=store)
    assert report.scored == ("darkness", "verifier") and again.calls == 0 and darkness.calls > 0
    assert (tmp_path / "two/scores.parquet").read_bytes() == (evaluations["base"] / "scores.parquet").read_bytes()
    assert report.fingerprint == ImageScores.open(evaluations["base"]).fingerprint
    evaluate_images(sets["lighter"], {"brightness": again}, tmp_path / "three", store=store)
    assert again.calls > 0
    assert evaluate_images(sets["base"], {"verifier": Verifier()}, tmp_path / "four", store=store).scored == ()
    assert ImageScores.open(tmp_path / "four").details == {
        "verifier": ImageScores.open(tmp_path / "two").details["verifier"]
    }


def test_scores_of_images_that_were_generated_anew_are_refused(
    sets: dict[str, ImageSet], evaluations: dict[str, Path], tmp_path: Path
) -> None:
    for name, scored in (("base", "base"), ("lighter", "twin")):
        shutil.copytree(evaluations[scored], tmp_path / name)
    with pytest.raises(StaleError, match="lighter holds scores of other images than"):
        compare_evaluated({name: sets[name] for name in ("base", "lighter")}, tmp_path, baseline="base")
