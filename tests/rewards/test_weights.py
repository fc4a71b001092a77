"""Checkpoints that are not what they should be: one line each, naming the file and the way out."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from smpo.core.errors import ConfigError, DataError
from smpo.rewards import SCORERS
from smpo.rewards.aesthetic import Aesthetic
from smpo.rewards.hpsv2 import HpsV2
from smpo.rewards.imagereward import ImageReward
from smpo.rewards.weights import load_model, local_file, read_tensors
from tests.rewards.goldens.cases import pixel_values
from tests.rewards.published import med_config, save_clip_folder, save_hpsv2, save_imagereward
from tests.rewards.references import weights
from tests.rewards.references.weights import BlipSizes, ClipSizes, Tower

SMALL_CLIP = ClipSizes(Tower(80, 1, 160, 80, 112), Tower(64, 1, 128, 64), 32, vocabulary=600)
SMALL_BLIP = BlipSizes(Tower(64, 1, 128, 64, 112), Tower(64, 1, 128, 64), vocabulary=600)


def clip_tensors() -> dict[str, torch.Tensor]:
    return weights.random_tensors(weights.open_clip_shapes(SMALL_CLIP))


def blip_tensors() -> dict[str, torch.Tensor]:
    return weights.random_tensors(weights.imagereward_shapes(SMALL_BLIP))


def hps_error(folder: Path, vocabulary: Path) -> str:
    return error_of(HpsV2(source=str(folder), tokenizer=str(vocabulary)))


def error_of(scorer: HpsV2 | ImageReward | Aesthetic) -> str:
    with pytest.raises(DataError) as caught:
        scorer.score(pixel_values(0, 1), ["a"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_weight(tmp_path: Path, clip_vocabulary: Path):
    tensors = clip_tensors()
    del tensors["visual.ln_post.bias"], tensors["transformer.resblocks.0.attn.in_proj_bias"]
    folder = save_hpsv2(tmp_path, tensors)
    assert hps_error(folder, clip_vocabulary) == (
        f"{folder}/HPS_v2.1_compressed.pt lacks weights (4, the first is text_model.encoder.layers.0.self_attn.k_proj."
        "bias); it holds another architecture, so correct the source")


def test_an_unknown_weight_is_not_dropped(tmp_path: Path, clip_vocabulary: Path):
    folder = save_hpsv2(tmp_path, {**clip_tensors(), "visual.extra.weight": torch.zeros(1)})
    assert "has unknown weights (1, the first is visual.extra.weight)" in hps_error(folder, clip_vocabulary)


def test_a_weight_of_another_shape(tmp_path: Path, clip_vocabulary: Path):
    folder = save_hpsv2(tmp_path, {**clip_tensors(), "ln_final.weight": torch.zeros(3)})
    error = hps_error(folder, clip_vocabulary)
    assert "has differently shaped weights (1, the first is text_model.final_layer_norm.weight)" in error


def test_settings_that_older_files_keep_as_weights_are_dropped(tmp_path: Path, clip_vocabulary: Path):
    extras = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77),
              "vocab_size": torch.tensor(600), "attn_mask": torch.zeros(77, 77)}
    folders = [save_hpsv2(tmp_path / "plain", clip_tensors()), save_hpsv2(tmp_path / "more", clip_tensors() | extras)]
    scorers = [HpsV2(source=str(folder), tokenizer=str(clip_vocabulary)) for folder in folders]
    models = [scorer._model.model for scorer in scorers]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_another_kind_of_checkpoint(tmp_path: Path, clip_vocabulary: Path):
    folder = save_hpsv2(tmp_path, {"weight": torch.zeros(1)})
    assert hps_error(folder, clip_vocabulary) == (
        "the checkpoint has no visual.conv1.weight: it is no CLIP in open_clip's layout; use the published file")


def test_a_pickle_with_code_is_not_run(tmp_path: Path, clip_vocabulary: Path):
    """weights_only: an object whose unpickling would write a file is refused, and the file is not written."""
    torch.save({"state_dict": {"x": Trap(tmp_path / "sprung")}}, tmp_path / "HPS_v2.1_compressed.pt")
    error = hps_error(tmp_path, clip_vocabulary)
    assert error.startswith(f"{tmp_path}/HPS_v2.1_compressed.pt holds no readable tensors")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_download_cut_short(kept: float, tmp_path: Path, clip_vocabulary: Path):
    file = save_hpsv2(tmp_path, clip_tensors()) / "HPS_v2.1_compressed.pt"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    error = hps_error(tmp_path, clip_vocabulary)
    assert error.startswith(f"{file} holds no readable tensors (") and error.endswith("); download it again")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1.5}}, {"a": {"b": torch.zeros(1)}}])
def test_more_than_tensors(content: object, tmp_path: Path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(DataError, match="holds more than named tensors; use the published checkpoint of the scorer$"):
        read_tensors([tmp_path / "file.pt"])


def test_a_plain_pickle(tmp_path: Path):
    (tmp_path / "file.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(DataError, match="^.*file.pt holds "):
        read_tensors([tmp_path / "file.pt"])


def test_a_folder_without_the_file(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        local_file(str(tmp_path), None, "HPS_v2.1_compressed.pt")
    assert str(caught.value) == (
        f"scorer source {tmp_path} has no HPS_v2.1_compressed.pt; correct the source or its revision")


def test_imagereward_parts_that_scoring_does_not_use_may_be_missing(tmp_path: Path, bert_vocabulary: Path):
    tensors = blip_tensors() | {"blip.text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    lean = {name: tensors[name] for name in tensors if not name.startswith(("blip.vision_proj", "blip.text_proj"))}
    folders = [save_imagereward(tmp_path / name, kept, med_config(SMALL_BLIP))
               for name, kept in (("all", tensors), ("lean", lean))]
    models = [ImageReward(source=str(folder), tokenizer=str(bert_vocabulary))._model.model for folder in folders]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize(("change", "expected"), [
    ({"drop": "blip.text_encoder.encoder.layer.0.crossattention.self.key.bias"},
     "lacks weights (1, the first is text.encoder.layer.0.crossattention.self.key.bias)"),
    ({"drop": "mlp.layers.4.weight"}, "has unknown weights (1, the first is head.layers.4.bias)"),
    ({"add": "blip.text_decoder.weight"}, "has unknown weights (1, the first is text.blip.text_decoder.weight)"),
])
def test_imagereward_is_loaded_strictly(change: dict, expected: str, tmp_path: Path, bert_vocabulary: Path):
    tensors = blip_tensors()
    tensors.pop(change.get("drop"), None)
    if "add" in change:
        tensors[change["add"]] = torch.zeros(1)
    folder = save_imagereward(tmp_path, tensors, med_config(SMALL_BLIP))
    assert expected in error_of(ImageReward(source=str(folder), tokenizer=str(bert_vocabulary)))


@pytest.mark.parametrize("content", ["{}", "not json", "[1]"])
def test_a_med_config_that_is_none(content: str, tmp_path: Path, bert_vocabulary: Path):
    folder = save_imagereward(tmp_path, blip_tensors(), {})
    (folder / "med_config.json").write_text(content)
    error = error_of(ImageReward(source=str(folder), tokenizer=str(bert_vocabulary)))
    assert error.startswith(f"{folder}/med_config.json and the checkpoint beside it are not ImageReward's (")


def test_the_relu_head_is_not_taken_for_the_linear_one(tmp_path: Path):
    """Its layers are numbered 0, 3, 6, 9, 11."""
    save_clip_folder(tmp_path, clip_tensors(), vision_head=80, activation="quick_gelu")
    linear = weights.random_tensors(weights.head_shapes(32))
    relu = {name.replace("layers.2.", "layers.3.").replace("layers.7.", "layers.11."): tensor
            for name, tensor in linear.items()}
    torch.save(relu, tmp_path / "head.pth")
    error = error_of(Aesthetic(source=str(tmp_path / "head.pth"), clip=str(tmp_path)))
    assert error.startswith(f"{tmp_path}/head.pth has unknown weights (4, the first is layers.11.bias)")


def test_a_folder_of_another_architecture(clip_folder: Path, tmp_path: Path):
    save_clip_folder(tmp_path, clip_tensors(), vision_head=80, activation="quick_gelu")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(DataError, match="holds a model of type siglip, expected clip; correct the source$"):
        SCORERS.build({"name": "pickscore", "source": str(tmp_path), "processor": str(clip_folder)}).score(
            pixel_values(0, 1), ["a"])


def test_weights_are_copied_and_released(tmp_path: Path):
    """The peak is one copy: what was converted is gone from the tensors given."""
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    model = load_model(lambda: nn.Linear(3, 2), tensors, dtype=torch.bfloat16, origin=tmp_path,
                       device=torch.device("cpu"))
    assert tensors == {} and model.weight.dtype == torch.bfloat16 and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "hpsv2", "version": "2.1"}, "unknown hpsv2 version '2.1'; known: v2.1, v2.0. Did you mean 'v2.1'?"),
    ({"name": "clip", "preset": "vit-h-14"},
     "unknown clip preset 'vit-h-14'; known: vit-h-14-laion2b, vit-l-14-openai, vit-b-32-openai, own. "
     "Did you mean 'vit-h-14-laion2b'?"),
    ({"name": "clip", "preset": "own"}, "scorer: preset own needs a source; give one, or name another preset"),
    ({"name": "imagereward", "dtype": "half"}, "unknown scorer.dtype 'half'; known: float32, bfloat16, float16."),
])
def test_settings(settings: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        SCORERS.build(settings)
    assert message in str(caught.value)


def test_defaults_are_the_published_ones():
    """Resolved as a recipe shows them."""
    assert SCORERS.resolved({"name": "clip"})["preset"] == "vit-h-14-laion2b"
    assert SCORERS.resolved({"name": "clip"})["source"] == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    assert SCORERS.resolved({"name": "clip", "source": "x"})["preset"] == "own"
    assert SCORERS.resolved(SCORERS.resolved({"name": "clip"})) == SCORERS.resolved({"name": "clip"})
    hps = SCORERS.resolved({"name": "hpsv2"})
    assert (hps["source"], hps["version"], hps["antialias"]) == ("xswu/HPSv2", "v2.1", False)
