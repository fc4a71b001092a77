"""A model is its content: what was changed in place is another, what was copied, linked or moved is the same."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smpo.core.errors import StaleError
from smpo.models import FAMILIES
from smpo.models.part_digests import check_same_parts, loaded_weights, part_digest, pipeline_digests
from smpo.preparation.cache import LatentCache, check_encoders
from smpo.training.result import open_run
from smpo.training.run import Run
from tests.tiny_pipelines import save_random_sd
from tests.training.outcomes import flip_byte
from tests.training.runs import make_run


@pytest.fixture
def copy(random_sd: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_sd, tmp_path / "copy"))


def change_setting(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


CHANGES: dict[str, Callable[[Path], None]] = {
    "unet": lambda folder: flip_byte(folder / "unet/diffusion_pytorch_model.safetensors"),
    "vae": lambda folder: change_setting(folder / "vae/config.json", scaling_factor=0.13025),
    "text_encoder": lambda folder: flip_byte(folder / "text_encoder/model.safetensors"),
    "tokenizer": lambda folder: change_setting(folder / "tokenizer/tokenizer_config.json", model_max_length=70),
    "scheduler": lambda folder: change_setting(folder / "scheduler/scheduler_config.json", beta_end=0.02),
    "index": lambda folder: change_setting(folder / "model_index.json", _class_name="Other"),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_part_that_changes_changes_its_digest_alone(random_sd: Path, copy: Path, part: str) -> None:
    before = pipeline_digests(random_sd)
    assert pipeline_digests(copy) == before
    CHANGES[part](copy)
    after = pipeline_digests(copy)
    assert {name for name in before if before[name] != after[name]} == {part}


@pytest.mark.parametrize("harmless", [
    lambda folder: change_setting(folder / "unet/config.json", _name_or_path="/home/me", _diffusers_version="9"),
    lambda folder: (folder / "vae/config.json").write_text(
        json.dumps(json.loads((folder / "vae/config.json").read_text()), indent=7)),
    lambda folder: os.utime(folder / "unet/diffusion_pytorch_model.safetensors", (1, 1)),
    lambda folder: (folder / "unet/README.md").write_text("mine"),
    lambda folder: (folder / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read"),
    lambda folder: (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"not read"),
])
def test_what_decides_nothing_changes_nothing(random_sd: Path, copy: Path, harmless: Callable[[Path], None]) -> None:
    harmless(copy)
    assert pipeline_digests(copy) == pipeline_digests(random_sd)


def test_a_variant_counts_where_it_is_what_is_read(copy: Path) -> None:
    plain = copy / "unet/diffusion_pytorch_model.safetensors"
    before = part_digest(copy / "unet")
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert [path.name for path in loaded_weights(copy / "unet")] == ["diffusion_pytorch_model.fp16.safetensors"]
    assert part_digest(copy / "unet") == before


def test_the_message_names_part_and_way_out() -> None:
    with pytest.raises(StaleError) as error:
        check_same_parts({"vae": "a" * 64, "x": "1"}, {"vae": "b" * 64, "x": "1"}, made="c", model="m", again="run it")
    assert str(error.value) == (
        "c was made with another vae than m has now (vae: bbbbbbbbbbbb then, aaaaaaaaaaaa now); bring the old one "
        "back, or run it"
    )


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer"])
def test_a_cache_of_other_encoders_is_refused_by_name(sd_artefacts: Path, copy: Path, part: str) -> None:
    cache, family = LatentCache(sd_artefacts / "cache"), FAMILIES.build({"name": "sd", "source": str(copy)})
    check_encoders(cache, family)
    CHANGES[part](copy)
    with pytest.raises(StaleError, match=f"cache was made with another {part} than {copy} has now .*run `smpo cache`"):
        check_encoders(cache, family)


@pytest.fixture
def run(sd_artefacts: Path, copy: Path, tmp_path: Path) -> Callable[..., Run]:
    return lambda source=copy, **changes: make_run(sd_artefacts, tmp_path / "run", source, steps=1, **changes)


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_training_goes_on_only_with_the_model_it_began_with(run: Callable[..., Run], copy: Path, part: str) -> None:
    open_run(run())
    CHANGES[part](copy)
    first = {"unet": "reference"}.get(part, part)  # in the order of the alphabet; the policy's start is named too
    with pytest.raises(StaleError, match=rf"run was made with input\.model\.{first}="):
        open_run(run())


def test_a_changed_reference_is_named(run: Callable[..., Run], copy: Path, tmp_path: Path) -> None:
    other = save_random_sd(tmp_path / "other", seed=1) / "unet"
    open_run(run(reference_weights=str(other)))
    flip_byte(other / "diffusion_pytorch_model.safetensors")
    with pytest.raises(StaleError, match=r"input\.model\.reference='.{12}' \(now '.{12}'\);"):
        open_run(run(reference_weights=str(other)))


def test_the_same_model_by_another_name_is_accepted(
    run: Callable[..., Run], copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run(run())
    moved = copy.rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.chdir(tmp_path)
    for source in (moved, tmp_path / "link", Path("elsewhere")):
        open_run(run(source))
    open_run(run(moved, init_weights=str(moved)))
