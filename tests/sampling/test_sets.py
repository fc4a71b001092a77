"""Image sets: what determines the pixels, what a killed run leaves, what is refused."""

import json
import multiprocessing
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from pydantic import ValidationError

from smpo.core.artefacts import read_manifest
from smpo.core.errors import ConfigError, DataError, StaleError
from smpo.models import sources
from smpo.prompts import Prompt
from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.pipelines import load_pipeline
from smpo.sampling.rendering import image_seed, render, sample_grid
from smpo.sampling.sets import generate_images
from smpo.sampling.store import generate_shared

PROMPTS = ["a red cat", "two blue dogs", "a green boat at the left", "a fish", "a small yellow star"]
FAST = GenerationOptions(num_inference_steps=3, batch_size=2)


@pytest.fixture(scope="module")
def image_set(random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    out = tmp_path_factory.mktemp("sets") / "set"
    generate_images(str(random_sd), PROMPTS, out, options=FAST)
    return ImageSet.open(out)


def pixels(images: ImageSet) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images.images()]).astype(int)


def test_set_holds_one_distinct_image_per_prompt(image_set: ImageSet) -> None:
    assert image_set.prompts == tuple(PROMPTS)
    assert image_set.files == tuple(f"images/{i:05d}.png" for i in range(5))
    images = pixels(image_set)
    assert images.shape == (5, 32, 32, 3)
    assert all(np.abs(images[i] - images[i + 1]).mean() > 1 for i in range(4))
    assert len(image_set) == 5 and len(image_set.images(1, 3)) == 2


def test_second_run_does_nothing_and_says_so(image_set: ImageSet, random_sd: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in image_set.folder.rglob("*.*")}
    report = generate_images(str(random_sd), PROMPTS, image_set.folder, options=FAST)
    assert (report.skipped, report.num_made, report.num_images) == (True, 0, 5)
    assert report.fingerprint == image_set.fingerprint
    assert before == {path: path.stat().st_mtime_ns for path in image_set.folder.rglob("*.*")}


def test_same_work_gives_identical_files_and_fingerprint(image_set: ImageSet, random_sd: Path, tmp_path: Path) -> None:
    report = generate_images(str(random_sd), PROMPTS, tmp_path / "again", options=FAST)
    assert not report.skipped and report.num_made == 5
    assert report.fingerprint == image_set.fingerprint
    for file in image_set.files:
        assert (tmp_path / "again" / file).read_bytes() == (image_set.folder / file).read_bytes()


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_images_do_not_depend_on_the_batch_size(
    image_set: ImageSet, random_sd: Path, tmp_path: Path, batch_size: int
) -> None:
    options = FAST.model_copy(update={"batch_size": batch_size})
    generate_images(str(random_sd), PROMPTS, tmp_path / "set", options=options)
    assert np.abs(pixels(ImageSet.open(tmp_path / "set")) - pixels(image_set)).max() <= 1


def test_image_equals_the_plain_pipeline(image_set: ImageSet, random_sd: Path) -> None:
    """Independent reference: diffusers alone, one image, the documented seed."""
    pipeline = DiffusionPipeline.from_pretrained(random_sd)
    generator = torch.Generator("cpu").manual_seed(image_seed(0, 2, 0))
    image = pipeline(PROMPTS[2], generator=generator, num_inference_steps=3, guidance_scale=7.5).images[0]
    assert np.abs(np.asarray(image).astype(int) - pixels(image_set)[2]).max() <= 1


def test_images_of_a_prompt_differ_and_the_first_is_that_of_a_single_run(
    image_set: ImageSet, random_sd: Path, tmp_path: Path
) -> None:
    options = FAST.model_copy(update={"images_per_prompt": 2})
    generate_images(str(random_sd), PROMPTS[:2], tmp_path / "set", options=options)
    images = ImageSet.open(tmp_path / "set")
    assert images.prompts == (PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1])
    assert images.images_per_prompt == 2 and len(set(images.seeds)) == 4
    assert np.abs(pixels(images)[::2] - pixels(image_set)[:2]).max() <= 1
    assert np.abs(pixels(images)[0] - pixels(images)[1]).mean() > 1


def test_sdxl_generates_with_its_own_guidance(random_sdxl: Path, tmp_path: Path) -> None:
    report = generate_images(str(random_sdxl), PROMPTS[:1], tmp_path / "set", options=FAST)
    assert report.num_made == 1
    assert ImageSet.open(tmp_path / "set").images()[0].size == (32, 32)
    assert read_manifest(tmp_path / "set", stage="generate")["settings"]["options"] == {
        "num_inference_steps": 3, "guidance_scale": 5.0, "seed": 0, "dtype": "float32", "images_per_prompt": 1,
    }


@pytest.mark.parametrize(("pipeline", "guidance"), [(StableDiffusionPipeline, 7.5), (StableDiffusionXLPipeline, 5.0)])
def test_what_options_leave_open_is_the_papers(pipeline: type, guidance: float) -> None:
    """Section 5.1: guidance 7.5 for SD1.5 and 5 for SDXL; 50 steps are the pipelines' own."""
    completed = GenerationOptions(seed=3).completed(pipeline)
    assert (completed.num_inference_steps, completed.guidance_scale, completed.seed) == (50, guidance, 3)
    given = GenerationOptions(num_inference_steps=4, guidance_scale=0.0)
    assert given.completed(pipeline) == given
    with pytest.raises(ConfigError, match="DDIMPipeline takes no guidance_scale; choose a text-to-image pipeline"):
        GenerationOptions().completed(DDIMPipeline)


def test_initial_noise_is_the_cpus_for_the_seed_alone(random_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rest of the batch is: row i is torch's own normal draw of seed i, on a CPU generator."""
    pipeline, seen = load_pipeline(str(random_sd), FAST), []
    prepare = pipeline.prepare_latents
    monkeypatch.setattr(pipeline, "prepare_latents", lambda *given: seen.append(prepare(*given)) or seen[-1])
    seeds = [image_seed(0, index, 0) for index in range(3)]
    render(pipeline, PROMPTS[:3], seeds, options=FAST)
    expected = [torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    assert torch.equal(seen[0], torch.cat(expected) * pipeline.scheduler.init_noise_sigma)


def test_categories_go_with_their_images(random_sd: Path, tmp_path: Path) -> None:
    prompts = [Prompt("a cat", "Animals", "Basic"), Prompt("a sign")]
    options = FAST.model_copy(update={"images_per_prompt": 2})
    generate_images(str(random_sd), prompts, tmp_path / "set", options=options)
    images = ImageSet.open(tmp_path / "set")
    assert images.categories == ("Animals", "Animals", None, None)
    assert images.challenges == ("Basic", "Basic", None, None)
    with pytest.raises(StaleError, match=r"prompts\.sha256="):
        generate_images(str(random_sd), [Prompt("a cat", "Pets"), prompts[1]], tmp_path / "set", options=options)


def _generate_and_hang(model: Path, out: Path) -> None:
    """Make two images, then wait for the signal. Forked, not started anew: importing diffusers takes 5 s."""
    generate_images(str(model), PROMPTS, out, options=FAST, progress=lambda done, total: time.sleep(60))


def test_killed_run_resumes_to_the_files_of_a_straight_run(
    image_set: ImageSet, random_sd: Path, tmp_path: Path
) -> None:
    """SIGKILL after the second of five images: the rest is made, what was there is not touched."""
    out = tmp_path / "set"
    process = multiprocessing.get_context("fork").Process(target=_generate_and_hang, args=(random_sd, out))
    process.start()
    deadline = time.monotonic() + 60
    while not (out / "images/00001.png").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (out / "images/00002.png.tmp-1").write_bytes(b"half an image")
    with pytest.raises(DataError, match="is unfinished; run `smpo generate` again to complete it"):
        ImageSet.open(out)
    kept = (out / "images/00000.png").stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    report = generate_images(str(random_sd), PROMPTS, out, options=FAST, progress=lambda *call: calls.append(call))
    assert (report.num_made, report.skipped, calls) == (3, False, [(4, 5), (5, 5)])
    assert (out / "images/00000.png").stat().st_mtime_ns == kept
    assert not list(out.rglob("*.tmp-*"))
    assert report.fingerprint == image_set.fingerprint


def test_other_options_prompts_or_weights_are_stale(image_set: ImageSet, random_sd: Path, tmp_path: Path) -> None:
    out = image_set.folder
    with pytest.raises(StaleError, match=r"was made with options\.seed=0 \(now 1\); delete the folder"):
        generate_images(str(random_sd), PROMPTS, out, options=FAST.model_copy(update={"seed": 1}))
    with pytest.raises(StaleError, match=r"prompts\.count=5 \(now 4\)"):
        generate_images(str(random_sd), PROMPTS[:4], out, options=FAST)
    other = tmp_path / "other"
    shutil.copytree(random_sd, other)
    config = other / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    manifest = read_manifest(out, stage="generate")["settings"]["model"]
    generate_images(str(other), PROMPTS[:1], tmp_path / "set", options=FAST)
    changed = read_manifest(tmp_path / "set", stage="generate")["settings"]["model"]
    assert {part for part in changed if changed[part] != manifest[part]} == {"scheduler"}


def test_speed_options_are_not_stale(image_set: ImageSet, random_sd: Path) -> None:
    options = FAST.model_copy(update={"batch_size": 4, "device": "cpu"})
    assert generate_images(str(random_sd), PROMPTS, image_set.folder, options=options).skipped


def test_non_finite_images_are_refused_and_black_ones_counted(random_sd: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(str(random_sd), FAST)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(DataError) as nan:
        render(pipeline, ["a red cat"], [7], options=FAST)
    assert str(nan.value) == (
        "the image of prompt 'a red cat' (seed 7) is non-finite; use dtype float32 or check the weights"
    )
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.fill_(-1e4)
    assert not render(pipeline, ["a red cat"], [7], options=FAST).any()
    pipeline.save_pretrained(tmp_path / "black")
    for out in ("set", "set"):  # generated, then used again
        report = generate_images(str(tmp_path / "black"), ["a red cat", "a dog"], tmp_path / out, options=FAST)
        assert report.num_black == 2 and report.black == ", 2 of them entirely black"
    assert read_manifest(tmp_path / "set", stage="generate")["notes"]["black_images"] == [
        "images/00000.png", "images/00001.png"]
    shared = generate_shared(
        str(tmp_path / "black"), ["a red cat"], tmp_path / "own", store=tmp_path / "store", options=FAST)
    assert shared.num_black == 1
    assert generate_images(str(random_sd), ["a red cat"], tmp_path / "bright", options=FAST).black == ""


def test_unusable_arguments_are_refused(random_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="prompts holds no prompts; add at least one"):
        generate_images(str(random_sd), [], tmp_path / "set", options=FAST)
    with pytest.raises(ConfigError, match="has no model_index.json; give the folder or hub id of a whole"):
        generate_images(str(random_sd / "unet"), PROMPTS, tmp_path / "set", options=FAST)
    monkeypatch.setattr(sources, "snapshot_download", lambda name, **_: (_ for _ in ()).throw(OSError("offline\nmore")))
    with pytest.raises(ConfigError) as refused:
        generate_images("no/such", PROMPTS, tmp_path / "set", options=FAST)
    assert str(refused.value) == (
        "model: no/such is no folder, and the hub does not deliver it (offline); correct it, or download the model and "
        "give its folder"
    )
    assert not (tmp_path / "set").exists()
    with pytest.raises(ValidationError, match="batch_size must be a finite number > 0, got 0"):
        GenerationOptions(batch_size=0)
    with pytest.raises(ValidationError, match="unknown dtype 'float8'; known: float32, float16, bfloat16"):
        GenerationOptions(dtype="float8")
    with pytest.raises(ValidationError, match="guidance_scale and seed must be >= 0, got -1.0 and 0"):
        GenerationOptions(guidance_scale=-1)


def test_damaged_image_is_named(image_set: ImageSet, tmp_path: Path) -> None:
    shutil.copytree(image_set.folder, tmp_path / "set")
    (tmp_path / "set/images/00003.png").write_bytes(b"no image")
    images = ImageSet.open(tmp_path / "set")
    assert len(images.images(0, 3)) == 3
    with pytest.raises(DataError, match=r"00003\.png is cut off \(8 bytes, .*; delete this file and run"):
        images.images()


def test_seeds_depend_on_all_three_numbers() -> None:
    seeds = {image_seed(a, b, c) for a in range(4) for b in range(50) for c in range(4)}
    assert len(seeds) == 800 and all(0 <= seed < 2**32 for seed in seeds)


def test_sample_grid_shows_the_images_of_a_generated_set(image_set: ImageSet, random_sd: Path) -> None:
    grid = sample_grid(load_pipeline(str(random_sd), FAST), PROMPTS, options=FAST, columns=3)
    assert grid.size == (12 + 3 * 204, 12 + 2 * (192 + 38 + 12))
    shown = grid.crop((12, 12, 204, 204))
    expected = image_set.images(0, 1)[0].resize((192, 192), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(expected).astype(int)).max() <= 2


def test_table_carries_everything_that_makes_an_image(image_set: ImageSet) -> None:
    rows = [json.loads(line) for line in (image_set.folder / "images.jsonl").read_text().splitlines()]
    assert rows[3] == {
        "index": 3, "prompt": "a fish", "prompt_index": 3, "image_index": 0, "seed": image_seed(0, 3, 0),
        "file": "images/00003.png",
    }
