"""What a run writes beside its weights: a pipeline that opens, a card, samples, curves."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smpo.core.artefacts import read_manifest
from smpo.models.saving import old_name
from smpo.models.sd import StableDiffusion
from smpo.sampling.options import GenerationOptions
from smpo.training import result
from smpo.training.cards import model_card, public_name
from smpo.training.checkpoint import load_checkpoint
from smpo.training.run import Run
from smpo.training.trainer import train
from tests.training.faults import PowerCut
from tests.training.outcomes import exit_code, outcome
from tests.training.runs import make_run

MakeRun = Callable[..., Run]
KEYS = {
    "step", "loss", "implicit_accuracy", "logit_mean", "logit_std", "error_delta_w", "error_delta_l", "grad_norm", "lr",
    "examples_per_s",
}
SAMPLES = {"prompts": ("a thing", "thing 2"), "num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def finished(sd_artefacts: Path, random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two steps that has ended."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run = make_run(sd_artefacts, folder, random_sd, steps=2, noising={"name": "forward"}, trackers=("tensorboard",))
    train(run)
    return run


def test_the_model_opens_as_a_plain_pipeline_with_the_trained_weights(finished: Run) -> None:
    pipeline = DiffusionPipeline.from_pretrained(finished.model_folder)
    trained = load_checkpoint(finished.checkpoints).tensors["policy"]
    opened = pipeline.unet.state_dict()
    assert opened.keys() == trained.keys()
    assert all(torch.equal(opened[name], tensor) for name, tensor in trained.items())
    base = finished.family.load_denoiser().state_dict()
    assert any(not torch.equal(opened[name], base[name]) for name in base)
    assert pipeline("a thing", num_inference_steps=1).images[0].size == (32, 32)


def test_everything_but_the_unet_is_the_base_models(finished: Run) -> None:
    base = Path(finished.family.source)
    for name in ("vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        assert (finished.model_folder / name).read_bytes() == (base / name).read_bytes()
    before, after = (load_file(folder / "text_encoder/model.safetensors") for folder in (base, finished.model_folder))
    assert all(torch.equal(tensor, after[old_name(name)]) for name, tensor in before.items())


def test_nothing_written_names_a_place_on_this_machine(finished: Run) -> None:
    for path in finished.model_folder.rglob("*"):
        if path.is_file():
            assert finished.family.source.encode() not in path.read_bytes() and b"/work" not in path.read_bytes(), path


def test_an_sdxl_model_opens_as_a_plain_pipeline(sdxl_artefacts: Path, random_sdxl: Path, tmp_path: Path) -> None:
    run = make_run(sdxl_artefacts, tmp_path / "run", random_sdxl, family="sdxl", steps=1)
    train(run)
    pipeline = DiffusionPipeline.from_pretrained(run.model_folder)
    trained = load_checkpoint(run.checkpoints).tensors["policy"]
    assert all(torch.equal(pipeline.unet.state_dict()[name], tensor) for name, tensor in trained.items())


def test_the_card_has_front_matter_and_the_recipe(finished: Run) -> None:
    _, front, body = (finished.model_folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "diffusers", "pipeline_tag": "text-to-image",
        "tags": ["smpo", "preference-alignment", "smpo"],
    }
    assert finished.recipe_yaml.strip() in body and finished.inputs["cache"][:16] in body


@pytest.mark.parametrize(("source", "name", "front"), [
    ("owner/model", "owner/model", "base_model: owner/model\n"),
    ("owner/model@main", "owner/model@main", "base_model: owner/model\n"),
    ("package://smpo.tiny/weights/tiny-sd", "package://smpo.tiny/weights/tiny-sd", ""),
    ("/home/me/bases/my model/", "my model", ""),
    ("~/bases/x.safetensors", "x.safetensors", ""),
])
def test_cards_name_a_base_so_that_others_understand_it(finished: Run, source: str, name: str, front: str) -> None:
    run = replace(finished, family=replace(finished.family, source=source), recipe_yaml=yaml.safe_dump({
        "model": {"source": source}, "prompts": ["/data/prompts.txt", "a cat / a dog"], "seed": 0,
    }))
    card = model_card(run)
    assert public_name(source) == name and card.startswith(f"---\n{front}library_name")
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == {
        "model": {"source": name}, "prompts": ["prompts.txt", "a cat / a dog"], "seed": 0,
    }


def test_the_manifest_counts_what_was_seen(finished: Run) -> None:
    results = read_manifest(finished.folder, stage="train")["results"]
    assert (results["steps"], results["pairs"], results["pairs_seen"]) == (2, 10, 8)
    assert list(results["weights"]) == ["diffusion_pytorch_model.safetensors"]


def test_every_step_has_a_line_of_finite_numbers(finished: Run) -> None:
    lines = [json.loads(line) for line in finished.metrics_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert line.keys() >= KEYS
        assert all(math.isfinite(value) for value in line.values())
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_tensorboard_gets_the_same_numbers(finished: Run) -> None:
    (events,) = (finished.folder / "logs" / "smpo").glob("events.out.tfevents.*")
    board = EventAccumulator(str(events)).Reload()
    lines = [json.loads(line) for line in finished.metrics_path.read_text().splitlines()]
    for key in KEYS - {"step"}:
        found = [(event.step, event.value) for event in board.Scalars(key)]
        assert found == [(line["step"], pytest.approx(line[key], rel=1e-5)) for line in lines]


def test_metrics_are_logged_every_n_steps(new_run: MakeRun) -> None:
    run = new_run("run", steps=5, log_every=2)
    train(run)
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [2, 4]


def test_sample_grids_are_drawn_and_disturb_nothing(new_run: MakeRun) -> None:
    plain, sampled = new_run("plain", steps=4), new_run("sampled", steps=4, samples={"every": 2, **SAMPLES})
    train(plain)
    train(sampled)
    grids = sorted((sampled.folder / "samples").iterdir())
    assert [path.name for path in grids] == ["step-00000002.png", "step-00000004.png"]
    with Image.open(grids[0]) as first, Image.open(grids[1]) as second:
        assert first.size == second.size and first.tobytes() != second.tobytes()
    assert outcome(sampled) == outcome(plain)


def test_samples_are_drawn_where_the_unet_is(new_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's other parts come from disk to the CPU; on a GPU they must ema_update_ the UNet."""
    moved: list[torch.device] = []

    class Pipeline:
        def to(self, device: torch.device) -> "Pipeline":
            moved.append(device)
            return self

    def grid(pipeline: Any, prompts: Any, *, options: GenerationOptions) -> Image.Image:
        assert isinstance(pipeline, Pipeline)
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr(StableDiffusion, "pipeline", lambda self, unet: Pipeline())
    monkeypatch.setattr(result, "sample_grid", grid)
    run = new_run("run", samples={"every": 2, **SAMPLES})
    result.save_samples(run, run.family.load_denoiser().to("meta"), 1)
    assert moved == [torch.device("meta")]


@pytest.mark.slow
def test_a_power_cut_at_any_call_leaves_a_whole_model_or_none(new_run: MakeRun) -> None:
    """Never a part of one: the new folder is written aside, the old one set aside, then removed."""
    run = new_run("run", steps=1)
    train(run)
    names = sorted(path.name for path in run.model_folder.iterdir())
    before, at, code = shutil.copytree(run.folder, run.folder.with_name("before")), 0, -9
    while code == -9:
        shutil.rmtree(run.folder)
        shutil.copytree(before, run.folder)

        def finish(at: int = at) -> None:
            PowerCut(at).armed = True
            result.finish_run(run, run.family.load_denoiser())

        code, at = exit_code(finish), at + 1
        if run.model_folder.exists():
            assert sorted(path.name for path in run.model_folder.iterdir()) == names
            DiffusionPipeline.from_pretrained(run.model_folder)
        result.finish_run(run, run.family.load_denoiser())
        assert not list(run.folder.glob(".tmp-*"))
    assert code == 0 and at > 4
