"""`smpo cache`: the latents and embeddings that the pipeline itself would give, once each, resumable."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from smpo.core.errors import DataError, StaleError
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.models import FAMILIES
from smpo.models.sd import StableDiffusion
from smpo.preparation import cache as cache_stage
from smpo.preparation.cache import LatentCache, cache_pairs, prompt_rows
from smpo.preparation.options import CacheOptions
from smpo.preparation.pairs import prepare_pairs
from tests.training.conftest import write_jsonl_pairs
from tests.training.faults import PowerCut
from tests.training.outcomes import exit_code

MakeCache = Callable[..., LatentCache]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    """Five pairs of 40 x 32 px images with three prompts."""
    root = tmp_path_factory.mktemp("pairs")
    prepare_pairs(str(write_jsonl_pairs(root / "source", count=5)), root / "pairs")
    return PairSet.open(root / "pairs")


@pytest.fixture(scope="module")
def family(random_sd: Path) -> StableDiffusion:
    return FAMILIES.build({"name": "sd", "source": str(random_sd)})


@pytest.fixture
def make_cache(pairs: PairSet, family: StableDiffusion, tmp_path: Path) -> MakeCache:
    def make(name: str = "cache", **options: Any) -> LatentCache:
        cache_pairs(pairs, family, tmp_path / name, options=CacheOptions(**{"resolution": 32, **options}))
        return LatentCache(tmp_path / name)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


def pipelines_latents(pipeline: StableDiffusionPipeline, image: Image.Image) -> torch.Tensor:
    """Mean of the scaled latents by the pipeline's own image processor and VAE."""
    pixels = pipeline.image_processor.preprocess(image)
    with torch.no_grad():
        return pipeline.vae.encode(pixels).latent_dist.mean[0] * pipeline.vae.config.scaling_factor


def test_latents_are_those_of_the_pipelines_vae(make_cache: MakeCache, pairs: PairSet, random_sd: Path) -> None:
    """Of the center square, and of its mirror image, which is not the mirrored latent."""
    pipeline, cache = StableDiffusionPipeline.from_pretrained(random_sd), make_cache()
    for row, pair in enumerate(pairs.iter_images()):
        for side, data in enumerate((pair.image_0, pair.image_1)):
            square = decode_image(data).crop((4, 0, 36, 32))
            mirrored = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for view, image in enumerate((square, mirrored)):
                expected = pipelines_latents(pipeline, image)
                torch.testing.assert_close(cache.moments(row, side, view)[0], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(cache.moments(0, 0, 1)[0], cache.moments(0, 0, 0)[0].flip(-1), atol=1e-3)


def test_deviations_are_the_posteriors_scaled(make_cache: MakeCache, pairs: PairSet, random_sd: Path) -> None:
    pipeline, cache = StableDiffusionPipeline.from_pretrained(random_sd), make_cache()
    first = decode_image(next(pairs.iter_images()).image_0).crop((4, 0, 36, 32))
    with torch.no_grad():
        posterior = pipeline.vae.encode(pipeline.image_processor.preprocess(first)).latent_dist
    scale = pipeline.vae.config.scaling_factor
    torch.testing.assert_close(cache.moments(0, 0, 0)[1], posterior.std[0] * scale, atol=1e-5, rtol=1e-4)


def test_prompts_are_encoded_once_each_and_found_again(
    make_cache: MakeCache, pairs: PairSet, family: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = StableDiffusion.encode_prompts

    def counting(self: StableDiffusion, prompts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        encoded.extend(prompts)
        return encode(self, prompts, device)

    monkeypatch.setattr(StableDiffusion, "encode_prompts", counting)
    cache = make_cache()
    assert encoded == ["", "thing 0", "thing 1", "thing 2"]
    expected = encode(family, list(pairs.captions), torch.device("cpu"))["hidden"]
    cached = cache.prompts(prompt_rows(pairs.captions))["hidden"]
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-4)


def test_the_empty_caption_is_row_zero_wherever_it_stands() -> None:
    assert prompt_rows(["b", "", "a", "b"]) == [2, 0, 1, 2]


def test_the_empty_prompt_is_encoded_or_zero(make_cache: MakeCache, family: StableDiffusion) -> None:
    encoded = make_cache("encode", empty_prompt="encode").prompts([0])["hidden"]
    assert torch.equal(encoded, family.encode_prompts([""], torch.device("cpu"))["hidden"]) and encoded.any()
    zeros = make_cache("zeros", empty_prompt="zeros")
    assert not zeros.prompts([0])["hidden"].any() and zeros.prompts([1])["hidden"].any()


def test_sdxl_zeros_reach_the_pooled_embedding_too(pairs: PairSet, random_sdxl: Path, tmp_path: Path) -> None:
    sdxl = FAMILIES.build({"name": "sdxl", "source": str(random_sdxl)})
    options = CacheOptions(resolution=32, empty_prompt="zeros")
    cache_pairs(pairs, sdxl, tmp_path / "cache", options=options)
    empty, full = (LatentCache(tmp_path / "cache").prompts([row]) for row in (0, 1))
    assert empty.keys() == full.keys() == {"hidden", "pooled"}
    assert all(not empty[name].any() and full[name].any() for name in full)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_does_not_matter(make_cache: MakeCache, batch_size: int) -> None:
    eight, other = make_cache("eight"), make_cache("other", batch_size=batch_size)
    for place in np.ndindex(5, 2, 2):
        for one, another in zip(other.moments(*place), eight.moments(*place), strict=True):
            torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-5)
        assert torch.equal(other.size(*place), eight.size(*place))


def test_half_precision_storage_is_near(make_cache: MakeCache) -> None:
    """fp16 has 11 bits: relative error 2^-11."""
    full, half = make_cache("full"), make_cache("half", dtype="float16")
    for one, another in zip(half.moments(3, 1, 1), full.moments(3, 1, 1), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, another, atol=1e-6, rtol=2**-11)
    torch.testing.assert_close(half.prompts([2])["hidden"], full.prompts([2])["hidden"], atol=1e-6, rtol=2**-11)
    assert sum(map(len, contents(half.folder).values())) < 0.7 * sum(map(len, contents(full.folder).values()))


def test_several_blocks_read_like_one(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_cache("one")
    expected = [one.moments(*place) for place in np.ndindex(5, 2, 2)]
    prompts = one.prompts([3, 0, 2])["hidden"]
    monkeypatch.setattr(cache_stage, "BLOCK_PAIRS", 2)
    monkeypatch.setattr(cache_stage, "BLOCK_PROMPTS", 3)
    several = make_cache("several")
    assert sorted(path.name for path in (several.folder / "latents").glob("mean-*")) == [
        "mean-00000.npy", "mean-00001.npy", "mean-00002.npy"
    ]
    for place, moments in zip(np.ndindex(5, 2, 2), expected, strict=True):
        for one, another in zip(several.moments(*place), moments, strict=True):
            torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(several.prompts([3, 0, 2])["hidden"], prompts, atol=1e-5, rtol=1e-5)


def is_complete(folder: Path) -> bool:
    try:
        LatentCache(folder)
    except DataError:
        return False
    return True


@pytest.mark.slow
def test_killed_at_any_call_it_resumes_to_the_same_bytes(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache_stage, "BLOCK_PAIRS", 3)
    straight, code, at = contents(make_cache("straight").folder), -9, 0
    while code == -9:

        def cut(at: int = at) -> None:
            PowerCut(at).armed = True
            make_cache("cut")

        code, at = exit_code(cut), at + 1
        assert contents(tmp_path / "cut") == straight or not is_complete(tmp_path / "cut")
        assert contents(make_cache("cut").folder) == straight
        shutil.rmtree(tmp_path / "cut")
    assert code == 0 and at > 20


def test_finished_blocks_are_not_made_again(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed at the last of three blocks, the second run encodes that block alone."""
    monkeypatch.setattr(cache_stage, "BLOCK_PAIRS", 2)
    encode, calls = cache_stage._encode_block, []

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments, **options)

    monkeypatch.setattr(cache_stage, "_encode_block", counting)
    with pytest.raises(KeyboardInterrupt):
        make_cache()
    make_cache()
    assert len(calls) == 4


def test_a_second_run_touches_nothing(
    make_cache: MakeCache, pairs: PairSet, family: StableDiffusion
) -> None:
    folder = make_cache().folder
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report = cache_pairs(pairs, family, folder, options=CacheOptions(resolution=32))
    assert report.skipped and (report.pairs, report.prompts, report.views) == (5, 4, 2)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


def test_the_batch_size_alone_is_no_other_cache(make_cache: MakeCache) -> None:
    make_cache(batch_size=2)
    make_cache(batch_size=4)


@pytest.mark.parametrize("changed", [{"resolution": 64}, {"flips": False}, {"dtype": "float16"}, {"crop": "random"}])
def test_other_options_are_refused_by_name(make_cache: MakeCache, changed: dict[str, Any]) -> None:
    make_cache()
    with pytest.raises(StaleError, match=f"{next(iter(changed))}="):
        make_cache(**changed)


def test_a_vae_that_overflows_is_an_error_and_leaves_no_cache(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def overflowing(self: StableDiffusion, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        vae = load(self, dtype)
        torch.nn.init.constant_(vae.quant_conv.bias, float("inf"))
        return vae

    load = StableDiffusion.load_vae
    monkeypatch.setattr(StableDiffusion, "load_vae", overflowing)
    with pytest.raises(ValueError, match="non-finite latents in torch.float32"):
        make_cache()
    with pytest.raises(DataError, match="unfinished"):
        LatentCache(tmp_path / "cache")


def test_embeddings_too_large_for_the_stored_type_are_an_error(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 ends at 65504; beyond it an embedding would silently become infinite."""
    encode = StableDiffusion.encode_prompts

    def large(self: StableDiffusion, prompts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        return {name: tensor + 70000 for name, tensor in encode(self, prompts, device).items()}

    monkeypatch.setattr(StableDiffusion, "encode_prompts", large)
    with pytest.raises(DataError, match="cache.dtype=float32"):
        make_cache(dtype="float16")
