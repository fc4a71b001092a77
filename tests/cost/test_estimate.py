"""The estimate against what real runs and caches are, and as a person meets it."""

import json

import pytest
from typer.testing import CliRunner

from smpo.cli.app import app
from smpo.cli.costing import as_json, as_text
from smpo.core.errors import ConfigError
from smpo.cost import disk
from smpo.cost.architecture import architecture_of
from smpo.cost.disk import latents_bytes, prompts_bytes
from smpo.cost.estimate import UTILISATION, Counts, counts_of, estimate
from smpo.cost.examples import example_cost
from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.pipeline.config import load_recipe
from smpo.preparation import cache
from smpo.preparation.cache import cache_pairs
from smpo.preparation.options import CacheOptions
from smpo.training.invert import cache_inversions
from smpo.training.sources import cached
from smpo.training.trainer import train
from tests.training.conftest import NUM_PAIRS
from tests.training.runs import make_run


@pytest.fixture(params=["sd", "sdxl"])
def model(request, random_sd, random_sdxl) -> dict[str, str]:
    return {"name": request.param, "source": str({"sd": random_sd, "sdxl": random_sdxl}[request.param])}


@pytest.mark.parametrize("options", [
    CacheOptions(resolution=32), CacheOptions(resolution=64, crop="random", crops=2, flips=False, dtype="float16"),
])
def test_disk_is_the_bytes_of_a_real_cache(options, model, artefacts, tmp_path, monkeypatch) -> None:
    """Ten pairs in blocks of four, five prompts and the empty one in blocks of three."""
    for module in (cache, disk):
        monkeypatch.setattr(module, "BLOCK_PAIRS", 4)
        monkeypatch.setattr(module, "BLOCK_PROMPTS", 3)
    cache_pairs(PairSet.open(artefacts / "pairs"), FAMILIES.build(model), tmp_path / "cache", options=options)
    latents, prompts = (
        sum(file.stat().st_size for file in (tmp_path / "cache" / part).iterdir()) for part in ("latents", "prompts")
    )
    architecture = architecture_of(model)
    assert latents_bytes(architecture, options, num_pairs=NUM_PAIRS) == latents
    assert prompts_bytes(architecture, options, num_prompts=NUM_PAIRS // 2) == prompts


@pytest.mark.parametrize(("objective", "noising"), [
    ({"name": "smpo"}, {"name": "chained", "chain_length": 2, "network": "reference"}),
    ({"name": "kto", "winner_share": 0.5}, {"name": "forward"}),
])
def test_disk_and_work_of_cached_inversions_are_those_of_a_real_store(
    objective, noising, artefacts, random_sd, tmp_path, monkeypatch
) -> None:
    """28 examples in blocks of three chains, the last one short; two draws a pair, so that none comes again."""
    monkeypatch.setattr(cached, "BLOCK_CHAINS", 3)
    settings = {"steps": 7, "batch_size": 4, "micro_batch_size": 4, "cached_inversion_epochs": 3}
    run = make_run(artefacts, tmp_path / "run", random_sd, objective=objective, noising=noising, **settings)
    report = cache_inversions(run, tmp_path / "store")
    changes = {f"training.{key}": value for key, value in settings.items()} | {"cache.dtype": "float32"}
    changes |= {f"{part}.{key}": value for part, its in (("objective", objective), ("noising", noising))
                for key, value in its.items()}
    recipe = load_recipe("sd15-smpo", [
        f"model.source={random_sd}", "cache.resolution=32", "labels.name=hard",
        *(f"{key}={value}" for key, value in changes.items()),
    ])
    found = estimate(recipe, Counts(NUM_PAIRS, 5, ""))
    assert found.storing.examples == report.examples == 28 and found.storing.evaluations == report.evaluations
    assert found.storing.bytes == sum(file.stat().st_size for file in (tmp_path / "store").glob("*.npy"))
    assert found.storing.flops == 28 * report.evaluations * found.forwards.unet
    assert found.example.nfe_no_grad == found.memory.reference == 0 and found.hours[0].storing > 0
    text = as_text(found)
    assert "28 examples of" in text and "cached inversions" in text and " storing  training" in text


def test_evaluations_are_those_that_a_run_logs(artefacts, random_sd, tmp_path) -> None:
    """Trained exactly; free as the mean of 80 examples, whose timesteps are drawn: 4 standard errors.

    With four steps and one ReNoise step an image takes 2 to 5 evaluations, evenly: a pair's deviation is 2 * 1.12.
    """
    noising = {"name": "renoise", "inversion_steps": 4, "grid": "fixed_stride"}
    run = make_run(
        artefacts, tmp_path / "run", random_sd, noising=noising, steps=10, batch_size=8, micro_batch_size=8,
        checkpoint_every=10,
    )
    train(run)
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    recipe = load_recipe("sd15-smpo", [f"noising.{key}={value}" for key, value in noising.items() if key != "name"])
    expected = example_cost(recipe)
    assert {line["nfe_grad"] for line in lines} == {expected.nfe_grad}
    mean = sum(line["nfe_no_grad"] for line in lines) / len(lines)
    assert mean == pytest.approx(expected.nfe_no_grad, abs=4 * 2 * 1.12 / 80**0.5)


def test_hours_follow_from_the_work(random_sd) -> None:
    """By hand: FLOPs over rate, at twice the utilisation half the hours, whatever the precision."""
    recipe = load_recipe("sd15-dpo", [f"model.source={random_sd}", "cache.resolution=32"])
    found, faster = (estimate(recipe, Counts(10, 5, ""), utilisation=share) for share in (0.25, 0.5))
    by_name = {one.gpu.name: one for one in found.hours}
    a800 = by_name["A800 80GB"]
    assert a800.training == pytest.approx(found.examples * 8 * found.forwards.unet / (312e12 * 0.25 * 3600))
    vae, text = 10 * 2 * 2 * found.forwards.vae, 6 * found.forwards.text
    assert a800.caching == pytest.approx((vae / 156e12 + text / 19.5e12) / (0.25 * 3600))
    assert [one.training for one in faster.hours] == pytest.approx([one.training / 2 for one in found.hours])
    assert found.memory.reference == found.memory.policy
    assert set(UTILISATION) == set(FAMILIES)


def test_a_lora_holds_one_unet_and_trains_its_adapters() -> None:
    """1,594,368 numbers (docs/lora.md), each with a gradient and two moments, in float32."""
    found = estimate(load_recipe("sd15-smpo-lora"), Counts(10, 5, ""))
    assert found.memory.reference == 0
    assert found.memory.gradients == found.memory.optimizer // 2 == 4 * 1_594_368
    assert found.memory.policy == 4 * (859_520_964 + 1_594_368)


def test_text_and_json(random_sd) -> None:
    recipe = load_recipe("sd15-smpo", [f"model.source={random_sd}", "cache.resolution=32"])
    found = estimate(recipe, Counts(10, 5, "as given"))
    text = as_text(found)
    assert max(map(len, text.splitlines())) <= 100
    assert "2 reference + 11.93 inversion" in text and "assumed, not measured" in text
    content = json.loads(as_json(found))
    assert content["memory"]["peak"] == found.memory.peak and content["utilisation"] == 0.1


def test_counts_and_mistakes(artefacts, tmp_path) -> None:
    recipe = load_recipe("sd15-smpo", [f"paths.workdir={tmp_path}"])
    assert counts_of(recipe).pairs == 851_293
    assert counts_of(recipe, (7, 3)) == Counts(7, 3, "as given")
    own = counts_of(load_recipe("sd15-smpo", [f"paths.pairs={artefacts / 'pairs'}"]))
    assert (own.pairs, own.prompts) == (NUM_PAIRS, NUM_PAIRS // 2)
    with pytest.raises(ConfigError, match="pairs must be a finite number > 0, got 0"):
        counts_of(recipe, (0, 3))
    with pytest.raises(ConfigError, match="utilisation must lie in"):
        estimate(recipe, Counts(7, 3, ""), utilisation=1.5)
    with pytest.raises(ConfigError, match="batch_size must be a multiple"):
        estimate(recipe, Counts(7, 3, ""), num_processes=7)
    with pytest.raises(ConfigError, match="model: /nowhere is no folder"):
        estimate(load_recipe("sd15-smpo", ["model.source=/nowhere"]), Counts(7, 3, ""))


def test_the_verb() -> None:
    result = CliRunner().invoke(app, ["cost", "tiny-demo", "--data", "400", "350", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["counts"] == {"pairs": 400, "prompts": 350, "source": "as given"}


def test_fewer_rows_are_fewer_pairs_to_cache() -> None:
    """Half of Pick-a-Pic: a prompt of 851,293 / 58,960 = 14.44 pairs is missed with probability 2^-14.44."""
    found = counts_of(load_recipe("sd15-smpo", ["data.max_rows=425646", "paths.pairs=/nowhere"]))
    assert found.pairs == 425_646
    assert found.prompts == round(58_960 * (1 - 0.5**14.4385)) == 58_957
    assert counts_of(load_recipe("sd15-smpo", ["data.max_rows=9000000", "paths.pairs=/nowhere"])).prompts == 58_960
    whole, part = (as_text(estimate(recipe, counts_of(recipe))) for recipe in (
        load_recipe("sd15-smpo", ["paths.pairs=/nowhere", change]) for change in ("seed=0", "data.max_rows=204800")
    ))
    assert "training sees no more than 24% of them" in " ".join(whole.split()) and "sees no more" not in part
