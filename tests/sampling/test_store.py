"""The store of image sets: each set is generated once, and every recipe gets the right one."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smpo.core import locks, parts
from smpo.core.artefacts import Artefact, finish, read_manifest
from smpo.core.errors import DataError, StaleError
from smpo.prompts import Prompt
from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.sets import ImageSetReport, ImageSetSpec, generate_images
from smpo.sampling.store import generate_shared
from tests.ranks import ranked

PROMPTS = [Prompt("a cat", "Animals", "Basic"), Prompt("a dog", "Animals"), Prompt("a car", "Vehicles", "Basic")]
TEXTS = [prompt.text for prompt in PROMPTS]
FAST = GenerationOptions(num_inference_steps=2, batch_size=2)
Generate = Callable[..., ImageSetReport]


@pytest.fixture
def generate(random_sd: Path, tmp_path: Path) -> Generate:
    def generated(name: str, prompts: list = PROMPTS, model: Path = random_sd, **options: object) -> ImageSetReport:
        return generate_shared(
            str(model), prompts, tmp_path / name / "generate/base", store=tmp_path / "store",
            options=FAST.model_copy(update=options),
        )

    return generated


def stored(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "store/images").iterdir() if path.is_dir())


def test_a_second_recipe_generates_nothing_and_has_the_same_set(generate: Generate, tmp_path: Path) -> None:
    first = generate("one")
    assert (first.num_made, first.skipped, first.folder) == (3, False, tmp_path / "one/generate/base")
    second = generate("two")
    assert (second.num_made, second.skipped) == (0, True)
    assert second.fingerprint == first.fingerprint
    one, two = ImageSet.open(first.folder), ImageSet.open(second.folder)
    assert one == two and one.folder == stored(tmp_path)[0]
    assert len(stored(tmp_path)) == 1 and len(one.images()) == 3
    assert sorted(path.name for path in first.folder.iterdir()) == ["images.jsonl", "manifest.json"]
    assert generate("one").skipped


def test_a_shared_set_equals_one_in_a_folder_of_its_own(generate: Generate, random_sd: Path, tmp_path: Path) -> None:
    alone = generate_images(str(random_sd), PROMPTS, tmp_path / "alone", options=FAST)
    shared = generate("one")
    assert shared.fingerprint == alone.fingerprint
    own, shared_set = ImageSet.open(alone.folder), ImageSet.open(shared.folder)
    assert dataclasses.replace(own, folder=shared_set.folder) == shared_set
    assert [(own.folder / file).read_bytes() for file in own.files] == [
        (shared_set.folder / file).read_bytes() for file in shared_set.files
    ]


def test_categories_belong_to_the_recipe_and_pixels_to_the_store(generate: Generate, tmp_path: Path) -> None:
    """The same texts from a file without categories: other rows, the same pixels."""
    generate("one")
    assert generate("two", TEXTS).num_made == 0
    one, two = (ImageSet.open(tmp_path / name / "generate/base") for name in ("one", "two"))
    assert one.categories == ("Animals", "Animals", "Vehicles") and one.challenges == ("Basic", None, "Basic")
    assert two.categories == two.challenges == (None, None, None)
    assert one.folder == two.folder and one.fingerprint != two.fingerprint
    row = json.loads((tmp_path / "one/generate/base/images.jsonl").read_text().splitlines()[0])
    assert row["category"] == "Animals" and row["prompt"] == "a cat"
    assert "category" not in (one.folder / "images.jsonl").read_text()


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"num_inference_steps": 3}, {"guidance_scale": 2.0}, {"images_per_prompt": 2},
    {"prompts": ["a cat", "a dog", "a bus"]}, {"prompts": TEXTS[:2]},
])
def test_what_decides_pixels_decides_the_place(random_sd: Path, change: dict) -> None:
    options = {key: value for key, value in change.items() if key != "prompts"}
    changed = FAST.model_copy(update=options)
    other = ImageSetSpec.of(str(random_sd), change.get("prompts", TEXTS), changed).settings
    assert other != ImageSetSpec.of(str(random_sd), TEXTS, FAST).settings


def test_another_drawing_takes_another_place_and_no_used_folder(generate: Generate, tmp_path: Path) -> None:
    generate("one")
    assert generate("two", seed=1).num_made == 3
    assert len(stored(tmp_path)) == 2
    with pytest.raises(StaleError, match=r"was made with options.seed=0 \(now 1\); delete the folder"):
        generate("one", seed=1)


def test_what_decides_no_pixels_decides_no_place(generate: Generate, random_sd: Path, tmp_path: Path) -> None:
    """Speed, where the weights lie, a safety checker, a model card, and the pipeline's own guidance written out."""
    generate("one", batch_size=3)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(random_sd, elsewhere)
    (elsewhere / "README.md").write_text("a card")
    (elsewhere / "safety_checker").mkdir()
    (elsewhere / "safety_checker/model.safetensors").write_bytes(b"anything")
    (elsewhere / "unet/diffusion_pytorch_model.bin").write_bytes(b"not read where there are safetensors")
    assert generate("two", model=elsewhere, guidance_scale=7.5, device="cpu").skipped
    settings = read_manifest(tmp_path / "two/generate/base", stage="generate")["settings"]
    assert settings["options"]["guidance_scale"] == 7.5
    assert read_manifest(stored(tmp_path)[0], stage="generate")["notes"]["source"] == str(random_sd)


def test_a_lost_store_is_named_and_drawn_again(generate: Generate, tmp_path: Path) -> None:
    before = generate("one").fingerprint
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(DataError, match="base are no longer in .*store/images/[0-9a-f]{32}; run `smpo generate` again"):
        ImageSet.open(tmp_path / "one/generate/base")
    again = generate("one")
    assert again.num_made == 3 and again.fingerprint == before
    assert len(ImageSet.open(again.folder).images()) == 3


def test_other_pixels_in_the_store_are_noticed(generate: Generate, tmp_path: Path) -> None:
    generate("one")
    made = Artefact.open(stored(tmp_path)[0], stage="generate")
    finish(made.folder, {**made.results, "pixels": "others"}, sealed=made.seals)
    with pytest.raises(DataError, match="run `smpo generate` again"):
        ImageSet.open(tmp_path / "one/generate/base")
    assert generate("one").fingerprint != generate("two", TEXTS).fingerprint
    assert ImageSet.open(tmp_path / "one/generate/base").prompts == tuple(TEXTS)


def test_a_moved_folder_of_runs_stays_whole(generate: Generate, tmp_path: Path) -> None:
    generate("runs")
    shutil.move(tmp_path / "runs", tmp_path / "moved/runs")
    with pytest.raises(DataError, match="no longer in"):
        ImageSet.open(tmp_path / "moved/runs/generate/base")
    shutil.move(tmp_path / "store", tmp_path / "moved/store")
    assert len(ImageSet.open(tmp_path / "moved/runs/generate/base").images()) == 3


def start(generate: Generate, name: str, *, before: Callable[[Path], None]) -> multiprocessing.Process:
    """A run of its own (no rank) that calls `before(path)` before it writes an image."""
    def work() -> None:
        torch.set_num_threads(1)
        write, locks.POLL_S = parts.write_atomically, 0.05

        def noting(path: Path, content: str | bytes) -> None:
            if path.suffix == ".png":
                before(path)
            write(path, content)

        parts.write_atomically = noting
        generate(name)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_of_two_runs_at_a_time_one_draws_and_the_other_finds(generate: Generate, tmp_path: Path) -> None:
    def note(path: Path) -> None:
        with open(tmp_path / "generated", "a") as file:
            file.write(f"{path.name}\n")
        time.sleep(0.1)

    processes = [start(generate, name, before=note) for name in ("one", "two")]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted((tmp_path / "generated").read_text().split()) == ["00000.png", "00001.png", "00002.png"]
    assert ImageSet.open(tmp_path / "one/generate/base") == ImageSet.open(tmp_path / "two/generate/base")


def test_the_turn_of_a_killed_run_is_free(generate: Generate, tmp_path: Path) -> None:
    """The first run is killed before its third image; the second, which waited, makes it alone."""
    def die(path: Path) -> None:
        if path.name == "00002.png":
            while not (tmp_path / "two/generate/base").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), 9)

    first = start(generate, "one", before=die)
    while not list((tmp_path / "store").rglob("00001.png")):
        assert first.is_alive()
        time.sleep(0.02)
    kept = next((tmp_path / "store").rglob("00000.png")).stat().st_mtime_ns
    second = start(generate, "two", before=lambda path: (tmp_path / path.name).touch())
    for process in (first, second):
        process.join(60)
    assert [first.exitcode, second.exitcode] == [-9, 0]
    assert [path.name for path in tmp_path.glob("*.png")] == ["00002.png"]
    assert next((tmp_path / "store").rglob("00000.png")).stat().st_mtime_ns == kept
    assert generate("one").num_made == 0 and len(ImageSet.open(tmp_path / "one/generate/base")) == 3


def test_two_processes_share_a_stored_set(generate: Generate, tmp_path: Path) -> None:
    assert ranked(lambda: generate("one"), 2) == [0, 0]
    assert generate("two").skipped
    assert ImageSet.open(tmp_path / "one/generate/base") == ImageSet.open(tmp_path / "two/generate/base")


def test_a_file_system_without_locks_is_no_obstacle(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", unsupported)
    assert generate("one").num_made == 3
