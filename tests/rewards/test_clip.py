"""PickScore and CLIP score against transformers on a tiny random CLIPModel that is loaded from disk."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from smpo.core.errors import ConfigError, DataError
from smpo.rewards import SCORERS, clip_cosine
from smpo.rewards.clip import ClipScore
from smpo.rewards.clip_cosine import ClipCosine, projected
from smpo.rewards.pickscore import PickScore
from tests.data.pictures import picture

IMAGES = [picture(seed, size) for seed, size in enumerate([(32, 32), (50, 40), (31, 77), (64, 33)])]
PROMPTS = ["cat", "red dog", "a longer prompt about a red cat and a dog", "!?"]


@pytest.fixture(scope="module")
def scorer(clip_folder: Path) -> ClipScore:
    return ClipScore(source=str(clip_folder))


def reference(folder: Path, images: list, prompts: list[str]) -> torch.Tensor:
    """The cosine by transformers' documented use, one pair at a time."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer, processor = CLIPTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)
    scores = []
    for image, prompt in zip(images, prompts, strict=True):
        tokens = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=16, padding="max_length")
        with torch.no_grad():
            output = model(**tokens, pixel_values=processor(images=image, return_tensors="pt")["pixel_values"])
        scores.append((output.logits_per_image / model.logit_scale.exp()).item())
    return torch.tensor(scores)


def test_scores_are_transformers_cosines(scorer: ClipScore, clip_folder: Path):
    scores = scorer(IMAGES, PROMPTS)
    assert (scores.dtype, scores.shape) == (torch.float32, (4,))
    assert torch.allclose(scores, reference(clip_folder, IMAGES, PROMPTS), atol=2e-6)
    assert scores.std() > 0.01  # the random model does tell the pairs apart


def test_row_depends_on_its_own_input_only(scorer: ClipScore):
    alone = torch.cat([scorer([image], [prompt]) for image, prompt in zip(IMAGES, PROMPTS, strict=True)])
    assert torch.allclose(scorer(IMAGES, PROMPTS), alone, atol=1e-6)
    assert torch.allclose(scorer(IMAGES[::-1], PROMPTS[::-1]).flip(0), alone, atol=1e-6)


def test_image_and_prompt_both_matter(scorer: ClipScore):
    same_image = scorer([IMAGES[0]] * 4, PROMPTS)
    same_prompt = scorer(IMAGES, [PROMPTS[0]] * 4)
    assert same_image.unique().numel() == same_prompt.unique().numel() == 4


def test_prompts_are_cut_at_16_tokens(scorer: ClipScore):
    """Start + 14 letters + end: what follows the 14th letter changes nothing, the 14th itself does."""
    letters = list("abcdefghijklmn")
    texts = [" ".join(letters), " ".join([*letters, "o", "p"]), " ".join([*letters[:-1], "z", "o", "p"])]
    cut, longer, other = scorer([IMAGES[0]] * 3, texts).tolist()
    assert cut == longer != other


def test_each_prompt_is_encoded_once(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    encoded = []
    original = ClipCosine._encode_prompt
    monkeypatch.setattr(ClipCosine, "_encode_prompt", lambda *args: encoded.append(args[1]) or original(*args))
    ClipScore(source=str(clip_folder))(IMAGES, ["cat", "dog", "cat", "cat"])
    assert encoded == ["cat", "dog"]


def test_weights_are_loaded_once_and_late(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    loads = []
    original = clip_cosine.load_model
    monkeypatch.setattr(clip_cosine, "load_model", lambda *a, **k: loads.append(a) or original(*a, **k))
    scorer = PickScore(source=str(clip_folder), processor=str(clip_folder))
    scorer.identity()
    assert not loads
    scorer(IMAGES[:1], PROMPTS[:1])
    scorer(IMAGES[:1], PROMPTS[:1])
    assert len(loads) == 1


def test_pickscore_and_clip_are_the_same_cosine(scorer: ClipScore, clip_folder: Path):
    """No logit_scale in either: a PickScore of a CLIP checkpoint is its CLIP score."""
    pickscore = PickScore(source=str(clip_folder), processor=str(clip_folder))
    assert torch.equal(pickscore(IMAGES, PROMPTS), scorer(IMAGES, PROMPTS))
    assert (pickscore.name, scorer.name, scorer.units, scorer.bounds) == ("pickscore", "clip", "cosine", (-1.0, 1.0))


def test_autocast_of_the_caller_changes_nothing(scorer: ClipScore):
    plain = scorer(IMAGES, PROMPTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scorer(IMAGES, PROMPTS), plain)


def test_bfloat16_is_close_and_float32(clip_folder: Path, scorer: ClipScore):
    low = ClipScore(source=str(clip_folder), dtype="bfloat16")(IMAGES, PROMPTS)
    assert low.dtype == torch.float32
    assert 0 < (low - scorer(IMAGES, PROMPTS)).abs().max() < 0.05


def test_half_precision_checkpoint_runs_in_float32(clip_folder: Path, tmp_path: Path):
    """transformers 5 would otherwise take over the checkpoint's own dtype."""
    folder = shutil.copytree(clip_folder, tmp_path / "half")
    CLIPModel.from_pretrained(clip_folder, dtype=torch.float16).save_pretrained(folder)
    assert ClipScore(source=str(folder))._model.model.dtype == torch.float32


def test_features_of_both_transformers_generations():
    """Version 4 returns the tensor, version 5 an object that holds it."""
    tensor = torch.ones(1, 2)
    output = type("Output", (), {"pooler_output": tensor})()
    assert projected(tensor) is tensor and projected(output) is tensor


def test_identity(clip_folder: Path):
    identity = ClipScore(source=str(clip_folder)).identity()
    digest = hashlib.sha256((clip_folder / "model.safetensors").read_bytes()).hexdigest()
    assert identity["weights"] == {"model.safetensors": digest}
    assert (identity["name"], identity["dtype"], identity["units"]) == ("clip", "float32", "cosine")
    assert identity["preprocessing"]["version"] == "shortest-side/2"
    assert set(identity["tokenizer"]) == {"vocab.json", "merges.txt"}


def test_registry_builds_scorers(clip_folder: Path):
    built = SCORERS.build({"name": "pickscore", "source": str(clip_folder), "dtype": "float16"})
    assert built == PickScore(source=str(clip_folder), dtype="float16")
    assert dataclasses.asdict(built)["processor"] == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    with pytest.raises(ConfigError, match="^scorer.sorce: unknown key; known: .* Did you mean 'source'"):
        SCORERS.build({"name": "clip", "sorce": "x"})


def error_of(source: Path | str, **settings) -> str:
    with pytest.raises(DataError) as caught:
        ClipScore(source=str(source), **settings)(IMAGES[:1], PROMPTS[:1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(clip_folder: Path, tmp_path: Path, *names: str) -> Path:
    folder = shutil.copytree(clip_folder, tmp_path / "broken")
    for name in names:
        (folder / name).unlink()
    return folder


def test_absent_source(tmp_path: Path):
    assert error_of(tmp_path / "no") == (
        f"scorer source {tmp_path / 'no'} does not exist; correct the path or give a hub id owner/name")


def test_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("smpo.rewards.weights.snapshot_download", refuse)
    assert error_of("owner/model") == (
        "scorer source owner/model is neither a folder nor a model the hub delivers (no route); "
        "correct it, or download the model and give its folder")


def test_pickled_weights_are_read_where_there_are_no_safetensors(scorer: ClipScore, clip_folder: Path, tmp_path: Path):
    """Older hub models, such as OpenAI's ViT-B/32, have pytorch_model.bin alone."""
    folder = without(clip_folder, tmp_path, "model.safetensors")
    torch.save(load_file(clip_folder / "model.safetensors"), folder / "pytorch_model.bin")
    assert torch.equal(ClipScore(source=str(folder))(IMAGES, PROMPTS), scorer(IMAGES, PROMPTS))


def test_no_weights(clip_folder: Path, tmp_path: Path):
    folder = without(clip_folder, tmp_path, "model.safetensors")
    assert error_of(folder) == (
        f"scorer source {folder} has neither model*.safetensors nor pytorch_model*.bin; correct it or its revision")


def test_missing_tokenizer(clip_folder: Path, tmp_path: Path):
    folder = without(clip_folder, tmp_path, "vocab.json", "merges.txt", "tokenizer_config.json")
    assert error_of(folder) == (
        f"{folder} holds no CLIP tokenizer (vocab.json, merges.txt); set processor or tokenizer to one that does")


def test_another_architecture(clip_folder: Path, tmp_path: Path):
    """A text encoder alone: transformers would give the image tower random weights with a warning."""
    folder = shutil.copytree(clip_folder, tmp_path / "text")
    weights = load_file(folder / "model.safetensors")
    text = {name: tensor for name, tensor in weights.items() if not name.startswith(("vision", "visual"))}
    save_file(text, folder / "model.safetensors", metadata={"format": "pt"})
    assert error_of(folder) == (
        f"{folder} lacks weights ({len(weights) - len(text)}, the first is vision_model.embeddings.class_embedding); "
        "it holds another architecture, so correct the source")


def test_a_preset_for_another_image_size(clip_folder: Path):
    assert error_of(clip_folder, preset="vit-l-14-openai") == (
        "the preprocessing gives 224 x 224 px, the model reads 32 px; set processor or preset to the model's own")


def test_counts_must_agree(scorer: ClipScore):
    with pytest.raises(ValueError, match="^expected one prompt per image, got 2 images and 1 prompts$"):
        scorer(IMAGES[:2], PROMPTS[:1])
    with pytest.raises(ValueError, match="got 0 images and 0 prompts"):
        scorer([], [])


def test_unknown_dtype():
    with pytest.raises(ConfigError, match="unknown scorer.dtype 'fp16'; known: float32, bfloat16, float16"):
        ClipScore(dtype="fp16")
