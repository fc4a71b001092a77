"""From a source to a local folder; the hub is its own cache on disk, without a network."""

import shutil
from pathlib import Path

import pytest
import torch

from smpo.core.errors import ConfigError
from smpo.cost.architecture import architecture_of
from smpo.models import sources
from smpo.models.sd import StableDiffusion
from smpo.models.sources import local_denoiser, local_pipeline
from smpo.pipeline.config import load_recipe
from smpo.pipeline.stages import base_model, compared_models
from smpo.sampling.options import GenerationOptions
from smpo.sampling.sets import generate_images
from tests.tiny_pipelines import save_random_sd

OLD, NEW = "1" * 40, "2" * 40  # commits


@pytest.fixture(scope="module")
def new_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_sd(tmp_path_factory.mktemp("models") / "new-sd", seed=1)


@pytest.fixture
def hub(random_sd: Path, new_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds owner/pipeline: `random_sd` as tag v1, `new_sd` as main; and owner/unet with a UNet alone."""
    for name, commit, ref, folder in (
        ("pipeline", OLD, "v1", random_sd), ("pipeline", NEW, "main", new_sd), ("unet", OLD, "main", None),
    ):
        place = tmp_path / "hub" / f"models--owner--{name}"
        snapshot = place / "snapshots" / commit
        if folder:
            shutil.copytree(folder, snapshot)
        else:
            shutil.copytree(random_sd / "unet", snapshot / "unet")
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / ref).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def error_of(source: str, revision: str | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        local_pipeline(source, revision=revision)
    return str(error.value)


def test_a_folder_is_itself_and_home_is_expanded(random_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(random_sd.parent))
    assert local_pipeline(str(random_sd)) == local_pipeline(f"~/{random_sd.name}") == random_sd
    assert local_pipeline(str(random_sd), revision="any") == random_sd
    assert local_denoiser(str(random_sd)) == local_denoiser(str(random_sd / "unet")) == random_sd / "unet"


def test_a_revision_chooses_the_snapshot(hub: Path) -> None:
    snapshots = hub / "models--owner--pipeline" / "snapshots"
    assert local_pipeline("owner/pipeline") == snapshots / NEW
    for revision in ("v1", OLD):
        assert local_pipeline("owner/pipeline", revision=revision) == snapshots / OLD
        assert local_pipeline(f"owner/pipeline@{revision}") == snapshots / OLD
    assert local_denoiser("owner/pipeline@v1") == snapshots / OLD / "unet"
    assert local_denoiser("owner/unet") == hub / "models--owner--unet" / "snapshots" / OLD / "unet"
    assert error_of("owner/pipeline@v1", "v2") == (
        "model: owner/pipeline@v1 names the revision v1, and model.revision is v2; give one")
    assert error_of("owner/unet").endswith(
        "has no model_index.json; give the folder or hub id of a whole diffusers pipeline")


def test_what_a_hub_model_is_asked_for(random_sd: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings; then plain safetensors of every network; then other kinds of those that have none."""
    asked = []
    folder = shutil.copytree(random_sd, tmp_path / "copy")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)
    assert StableDiffusion(source="owner/name", revision="abc").folder == folder
    assert {entry[:2] for entry in asked} == {("owner/name", "abc")}
    settings, plain, half = (entry[2] for entry in asked)
    assert settings == ["*.json", "*/merges.txt"]
    assert set(plain) >= {
        f"{part}/{stem}{middle}.safetensors" for part, stem in
        {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}.items()
        for middle in ("", "-?????-of-?????")
    }
    assert half == ["vae/diffusion_pytorch_model.fp16.safetensors",
                    "vae/diffusion_pytorch_model.fp16-?????-of-?????.safetensors",
                    "vae/diffusion_pytorch_model-?????-of-?????.fp16.safetensors"]


def test_every_stage_reads_the_same_revision(hub: Path, tmp_path: Path) -> None:
    """Training, sampling, generation and cost."""
    recipe = load_recipe("tiny-dpo", ["model.source=owner/pipeline", "model.revision=v1"])
    assert base_model(recipe) == compared_models(recipe)["base"] == "owner/pipeline@v1"
    old = hub / "models--owner--pipeline" / "snapshots" / OLD
    family = StableDiffusion(source="owner/pipeline", revision="v1")
    assert family.folder == old == architecture_of(recipe.model).folder
    options = GenerationOptions(num_inference_steps=1)
    sets = [generate_images(source, ["a"], tmp_path / str(i), options=options).fingerprint
            for i, source in enumerate([base_model(recipe), str(old), "owner/pipeline"])]
    assert sets[0] == sets[1] != sets[2]
    ours, theirs = (StableDiffusion(source=s).load_denoiser().state_dict() for s in (str(old), "owner/pipeline@v1"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("source", "message"), [
    ("/no/such/folder", "model: /no/such/folder is no folder; give a diffusers pipeline folder or a hub id"),
    ("runs/no/such", "model: runs/no/such is no folder; give a diffusers pipeline folder or a hub id"),
    ("/no/base.safetensors", "model: /no/base.safetensors is no file; give a diffusers pipeline folder or a hub id"),
    ("", "model: . has no model_index.json; give the folder or hub id of a whole diffusers pipeline"),
    ("nobody", "model: nobody is no folder; give a diffusers pipeline folder or a hub id"),
    ("~no-such-user/x", "~no-such-user/x: this user's home folder is not known; write the path out"),
    ("package://", "package://: no package '' is installed; correct the source"),
])
def test_what_is_no_source(source: str, message: str) -> None:
    assert error_of(source) == message


def test_a_hub_model_that_is_not_there_offline_is_one_line(hub: Path) -> None:
    for source in ("owner/missing", "owner/pipeline@v9"):
        message = error_of(source)
        assert message.startswith(f"model: {source} is no folder, and the hub does not deliver it (")
        assert "\n" not in message and "; correct it, or download the model and give its folder" in message
