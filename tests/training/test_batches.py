"""From the cache to a batch: who wins, what is mirrored, which caption, which size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.core.processes import Process
from smpo.core.randomness import normal_per_seed
from smpo.core.records import TrainingBatch
from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.preparation.cache import LatentCache, cache_pairs
from smpo.preparation.options import CacheOptions
from smpo.training.preference_run import PreferenceRun as Run
from smpo.training.sources.order import Example, ExampleOrder, draws_of, example_at
from smpo.training.sources.pairs import MicroBatches, PairSource
from tests.training.runs import make_run
from tests.training.steps import micro_batches

MakeRun = Callable[..., Run]


def batches(run: Run, *, winner_share: float | None = None, **changes: Any) -> MicroBatches:
    return micro_batches(run, order=ExampleOrder(0, winner_share), **changes)


def visits_of(run: Run, count: int) -> list[Example]:
    """The first `count` examples."""
    return [example_at(position, num_pairs=len(run.pairs), order=ExampleOrder(0)) for position in range(count)]


def collated(
    run: Run, count: int, *, winner_share: float | None = None, **changes: Any
) -> tuple[TrainingBatch, list[int]]:
    """A batch of the first `count` examples, and the cache row of each."""
    examples = visits_of(run, count)
    batch = batches(run, winner_share=winner_share, **changes).collate(examples)
    return batch, [run.pairs.cache_rows[example.row] for example in examples]


def views_taken(run: Run, flips: str, count: int = 60) -> list[tuple[int, int]]:
    """Which view winner and loser of each example are."""
    batch, rows = collated(run, count, flips=flips, latents="mean")

    def view(side: int, place: int) -> int:
        found = [v for v in (0, 1) if torch.equal(run.cache.moments(rows[place], side, v)[0], batch.x_0[side, place])]
        assert len(found) == 1
        return found[0]

    return [(view(0, place), view(1, place)) for place in range(count)]


def test_flips_none_takes_no_mirrored_view(new_run: MakeRun) -> None:
    assert set(views_taken(new_run("run"), "none")) == {(0, 0)}


def test_shared_flips_mirror_both_images_or_neither(new_run: MakeRun) -> None:
    assert set(views_taken(new_run("run"), "shared")) == {(0, 0), (1, 1)}


def test_independent_flips_take_each_combination_about_equally_often(new_run: MakeRun) -> None:
    taken = views_taken(new_run("run"), "independent", count=200)
    counts = [taken.count(pair) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert min(counts) > 25  # 50 expected, deviation sqrt(200 * 3/16) = 6.1


def test_the_labelled_winner_comes_first(new_run: MakeRun) -> None:
    run = new_run("run")
    run.pairs.winner = [row % 2 for row in range(len(run.pairs))]
    batch, rows = collated(run, 10, flips="none", latents="mean")
    winners = {run.pairs.cache_rows[row]: row % 2 for row in range(10)}
    for place, row in enumerate(rows):
        assert torch.equal(batch.x_0[0, place], run.cache.moments(row, winners[row], 0)[0])
        assert torch.equal(batch.x_0[1, place], run.cache.moments(row, 1 - winners[row], 0)[0])


def test_sampled_latents_are_mean_plus_deviation_times_the_visits_own_noise(new_run: MakeRun) -> None:
    run = new_run("run")
    mean, rows = collated(run, 4, flips="none", latents="mean")
    sample, _ = collated(run, 4, flips="none", latents="sample")
    for side in (0, 1):
        std = torch.stack([run.cache.moments(row, side, 0)[1] for row in rows])
        noise = normal_per_seed(sample.seeds, std.shape[1:], stream=f"posterior-{side}")
        torch.testing.assert_close(sample.x_0[side], mean.x_0[side] + std * noise)
    assert std.min() > 0


# --- one image an example ---

def test_one_image_visits_show_the_winner_with_the_given_probability_and_the_pairs_own_side(new_run: MakeRun) -> None:
    """Whatever is shown is what an example of both images shows on that side: latents, draws and all."""
    run = new_run("run")
    run.pairs.p_winner = torch.linspace(0.6, 0.9, len(run.pairs))
    both, _ = collated(run, 60, latents="sample")
    one, _ = collated(run, 60, latents="sample", winner_share=0.7)
    assert both.x_0.shape[0] == 2 and one.x_0.shape == (1, *both.x_0.shape[1:])
    losers = []
    for place, example in enumerate(visits_of(run, 60)):
        draw = draws_of(example, min_timestep=1, max_timestep=999, caption_dropout=0.2)
        losers.append(draw.shown >= 0.7)
        assert torch.equal(one.x_0[0, place], both.x_0[int(losers[-1]), place])
        p = both.p_winner[place]
        assert one.p_winner[place] == (1 - p if losers[-1] else p)
    assert torch.equal(one.timesteps, both.timesteps) and torch.equal(one.seeds, both.seeds)
    for name in ("conditioning", "null_conditioning"):
        pairs, images = getattr(both, name).tensors["hidden"], getattr(one, name).tensors["hidden"]
        assert torch.equal(images, pairs[:60])
    assert 7 <= sum(losers) <= 29  # 18 expected of 60, deviation sqrt(60 * 0.21) = 3.5; three of them


@pytest.mark.parametrize(("share", "p"), [(1.0, 1.0), (0.0, 0.0)])
def test_certain_labels_make_shown_images_desirable_or_undesirable(new_run: MakeRun, share: float, p: float) -> None:
    run = new_run("run")
    batch, _ = collated(run, 10, winner_share=share)
    both, _ = collated(run, 10)
    assert torch.equal(batch.x_0[0], both.x_0[0 if p else 1]) and batch.p_winner.tolist() == [p] * 10


def test_images_that_are_not_shown_are_not_read(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, read = new_run("run"), []
    moments = run.cache.moments

    def noting(pair: int, image: int, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        read.append((pair, image))
        return moments(pair, image, view)

    monkeypatch.setattr(run.cache, "moments", noting)
    _, rows = collated(run, 10, winner_share=1.0)
    assert read == [(row, run.pairs.winner[run.pairs.cache_rows.index(row)]) for row in rows]


def test_captions_are_each_pairs_own_and_the_null_conditioning_is_the_empty_prompt(new_run: MakeRun) -> None:
    run = new_run("run")
    batch, rows = collated(run, 10, caption_dropout=0.0)
    captions = PairSet.open(run.cache.folder.parent / "pairs").captions
    expected = run.family.encode_prompts([captions[row] for row in rows] * 2, torch.device("cpu"))["hidden"]
    torch.testing.assert_close(batch.conditioning.tensors["hidden"], expected, atol=1e-6, rtol=1e-5)
    empty = run.family.encode_prompts([""], torch.device("cpu"))["hidden"]
    torch.testing.assert_close(
        batch.null_conditioning.tensors["hidden"], empty.expand(20, -1, -1), atol=1e-6, rtol=1e-5
    )


def test_all_captions_dropped_leave_the_empty_prompt(new_run: MakeRun) -> None:
    batch, _ = collated(new_run("run"), 5, caption_dropout=1.0)
    assert torch.equal(batch.conditioning.tensors["hidden"], batch.null_conditioning.tensors["hidden"])


def test_rows_carry_their_own_weight_and_name(new_run: MakeRun) -> None:
    run = new_run("run")
    run.pairs.p_winner = torch.arange(10) / 10
    batch, rows = collated(run, 10)
    place = {row: number for number, row in enumerate(run.pairs.cache_rows)}
    assert batch.p_winner.tolist() == pytest.approx([place[row] / 10 for row in rows])
    assert batch.ids == tuple(run.pairs.pair_ids[place[row]] for row in rows)


def test_a_micro_batch_is_the_same_whatever_the_size_of_the_others(new_run: MakeRun) -> None:
    run = new_run("run")
    four = batches(run, micro_batch_size=4)[1]
    ones = [batches(run, micro_batch_size=1)[place] for place in range(4, 8)]
    assert four.ids == tuple(one.ids[0] for one in ones)
    assert torch.equal(four.x_0, torch.cat([one.x_0 for one in ones], dim=1))
    assert torch.equal(four.timesteps, torch.cat([one.timesteps for one in ones]))


def test_two_processes_deal_out_what_one_reads(new_run: MakeRun) -> None:
    """The fourth step's four pairs by rising timestep: the first and third, the second and fourth."""
    run = new_run("run")
    alone = batches(run, micro_batch_size=4)[3]
    assert (alone.timesteps.diff() >= 0).all()
    for rank in (0, 1):
        ours = micro_batches(run, order=ExampleOrder(0), process=Process(rank, 2))
        assert torch.equal(ours[3].x_0, alone.x_0[:, rank::2]) and ours[3].ids == alone.ids[rank::2]


def sdxl_sizes(artefacts: Path, folder: Path, model: Path, **cache: Any) -> torch.Tensor:
    """The micro-conditioning of a batch over a cache with these options."""
    pairs = PairSet.open(artefacts / "pairs")
    family = FAMILIES.build({"name": "sdxl", "source": str(model)})
    cache_pairs(pairs, family, folder / "cache", options=CacheOptions(resolution=32, **cache))
    run = make_run(artefacts, folder / "run", model, family="sdxl")
    run.pairs.cache_rows = list(range(len(run.pairs)))
    source = PairSource(run.pairs, LatentCache(folder / "cache"), family, run.options, ExampleOrder(0))
    return MicroBatches(source, Process())[0].conditioning.tensors["time_ids"]


def test_constant_sizes_are_those_of_an_uncropped_square(
    sdxl_artefacts: Path, random_sdxl: Path, tmp_path: Path
) -> None:
    time_ids = sdxl_sizes(sdxl_artefacts, tmp_path, random_sdxl, sizes="constant")
    assert time_ids.tolist() == [[32, 32, 0, 0, 32, 32]] * 4


def test_real_sizes_are_the_images_own(sdxl_artefacts: Path, random_sdxl: Path, tmp_path: Path) -> None:
    """Images are 40 wide and 32 high: four px are cut on the left and on the right of the square."""
    time_ids = sdxl_sizes(sdxl_artefacts, tmp_path, random_sdxl, sizes="real")
    assert time_ids.tolist() == [[32, 40, 0, 4, 32, 32]] * 4
