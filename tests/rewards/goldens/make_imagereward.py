"""Asks image-reward 1.5 under transformers 4.55.4, and openai-clip 1.0.1. Not a test: see README.md.

    PYTHONPATH=. REFERENCE/bin/python -m tests.rewards.goldens.make_imagereward PartiPrompts.tsv vocab.txt OUT [--full]
"""

import csv
import gzip
import hashlib
import importlib
import json
import sys
import tempfile
from pathlib import Path

import torch

OPERATORS = torch.library.Library("torchvision", "DEF")  # torchvision's binary part, which would, needs CUDA
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import clip  # noqa: E402
import transformers  # noqa: E402
from clip.model import CLIP  # noqa: E402
from ImageReward.models.BLIP import blip, blip_pretrain  # noqa: E402

from tests.rewards.goldens import cases  # noqa: E402
from tests.rewards.references import weights  # noqa: E402

SEED, OPENAI_SEED = 5, 14  # with the latter no cosine is near 0, where a relative error means nothing
module = importlib.import_module("ImageReward.ImageReward")  # the package's attribute of this name is the class


def med_config(sizes: weights.BlipSizes) -> dict:
    """The published settings, with the sizes of the text tower."""
    text = sizes.text
    return {"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "hidden_size": text.width, "initializer_range": 0.02,
            "intermediate_size": text.mlp, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
            "model_type": "bert", "num_attention_heads": text.heads, "num_hidden_layers": text.layers,
            "pad_token_id": 0, "add_type_embeddings": False, "vocab_size": sizes.vocabulary,
            "encoder_width": text.width, "add_cross_attention": True}


def build(sizes: weights.BlipSizes, vocabulary: Path, seed: int) -> torch.nn.Module:
    """The original's model with random weights; only the sizes written into its source are replaced."""
    vision, mlp = sizes.vision, module.MLP

    def create_vit(vit: str, image_size: int, *unused: object) -> tuple[torch.nn.Module, int]:
        return blip.VisionTransformer(img_size=image_size, patch_size=vision.patch, embed_dim=vision.width,
                                      depth=vision.layers, num_heads=vision.heads), vision.width

    blip_pretrain.create_vit = create_vit
    module.MLP = lambda width: mlp(sizes.text.width)
    tokenizer = transformers.BertTokenizer
    blip.BertTokenizer = type("Offline", (), {"from_pretrained": staticmethod(lambda _: tokenizer(str(vocabulary)))})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "med_config.json"
        file.write_text(json.dumps(med_config(sizes)))
        model = module.ImageReward(med_config=str(file), device="cpu").eval()
    module.MLP = mlp
    tensors = weights.random_tensors(weights.imagereward_shapes(sizes), seed)
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    assert not unexpected and set(missing) <= {"blip.text_encoder.embeddings.position_ids"}, (missing, unexpected)
    return model


def network(model: torch.nn.Module, prompts: tuple[str, ...], seed: int) -> list[float]:
    """Ratings of pixel values for prompts."""
    tokens = model.blip.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=35,
                                  return_tensors="pt")
    with torch.no_grad():
        pixels = cases.pixel_values(seed, len(prompts))
        return model.score_gard(tokens.input_ids, tokens.attention_mask, pixels)[:, 0].tolist()


def end_to_end(model: torch.nn.Module) -> dict[str, list[float]]:
    """Ratings of pictures for prompts by the original's own `score`."""
    with torch.no_grad():
        return {f"{w}x{h}": [model.score(prompt, cases.picture((w, h))) for prompt in cases.PROMPTS]
                for w, h in ((224, 224), (225, 301), (640, 427))}


def bert_tokens(tokenizer, parti: list[str]) -> dict:
    def ids(prompt: str) -> list[int]:
        return tokenizer(prompt, padding="max_length", truncation=True, max_length=35)["input_ids"]

    return {"ids": {prompt: ids(prompt) for prompt in cases.HARD_PROMPTS}, "parti_sha256": digest(map(ids, parti))}


def openai_tokens(parti: list[str]) -> dict:
    def ids(prompt: str) -> list[int]:
        row = clip.tokenize([prompt], truncate=True)[0].tolist()
        return row[: len(row) - next(n for n, token in enumerate(reversed(row)) if token)]

    return {"ids": {prompt: ids(prompt) for prompt in cases.HARD_PROMPTS}, "parti_sha256": digest(map(ids, parti))}


def digest(rows) -> str:
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def openai_clip(sizes: weights.ClipSizes, seed: int) -> dict[str, list]:
    """Cosines and normalised image features of OpenAI's own CLIP class."""
    model = CLIP(sizes.projection, 224, sizes.vision.layers, sizes.vision.width, sizes.vision.patch, 77,
                 sizes.vocabulary, sizes.text.width, sizes.text.heads, sizes.text.layers).eval()
    model.load_state_dict(weights.random_tensors(weights.open_clip_shapes(sizes), seed), strict=True)
    with torch.no_grad():
        image = model.encode_image(cases.pixel_values(seed, len(cases.PROMPTS)))
        text = model.encode_text(clip.tokenize(list(cases.PROMPTS)))
        head = module.MLP(sizes.projection).eval() if sizes.projection == 768 else None
        image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
        found = {"cosines": (image * text).sum(-1).tolist()}
        if head is not None:  # the LAION head's class is the same sequence of layers
            head.load_state_dict(weights.random_tensors(weights.head_shapes(768), seed), strict=True)
            found["aesthetic"] = head(image)[:, 0].tolist()
    return found


def main() -> None:
    parti, vocabulary, out = (Path(argument) for argument in sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    prompts = [row["Prompt"] for row in csv.DictReader(parti.open(), delimiter="\t", quoting=csv.QUOTE_NONE)]
    (out / "bert-vocab.txt.gz").write_bytes(gzip.compress(vocabulary.read_bytes(), 9, mtime=0))
    model = build(weights.REDUCED_BLIP, vocabulary, SEED)
    preprocess = clip.clip._transform(224)
    for size in cases.SIZES:  # openai-clip, image-reward: the same pipeline
        assert torch.equal(preprocess(cases.picture(size)), model.preprocess(cases.picture(size)))
    golden = {
        "versions": {"image-reward": "1.5", "openai-clip": "1.0.1", "transformers": transformers.__version__,
                     "torch": torch.__version__, "torchvision": "0.28.0"},
        "seed": SEED, "openai_seed": OPENAI_SEED, "med_config": med_config(weights.REDUCED_BLIP),
        "tokens": {"imagereward": bert_tokens(model.blip.tokenizer, prompts), "openai": openai_tokens(prompts)},
        "scores": {"reduced": network(model, cases.PROMPTS, SEED), "end_to_end": end_to_end(model),
                   "openai": openai_clip(weights.REDUCED_OPENAI, OPENAI_SEED),
                   "aesthetic": openai_clip(weights.REDUCED_AESTHETIC, SEED)},
    }
    small = weights.imagereward_shapes(weights.REDUCED_BLIP)
    golden["scores"]["reduced_faint"] = faint(model, small)
    if "--full" in sys.argv:
        del model
        golden["scores"]["full"] = network(build(weights.BLIP_L, vocabulary, SEED), cases.PROMPTS[:1], SEED)
    (out / "imagereward.json").write_text(json.dumps(golden, indent=1) + "\n")


def faint(model: torch.nn.Module, shapes: weights.Shapes) -> list[float]:
    """Ratings with the image tower's embeddings 500 times smaller, which makes its LayerNorm's eps count."""
    tensors = weights.random_tensors(shapes, SEED)
    for name in tensors:
        if any(part in name for part in ("cls_token", "pos_embed", "patch_embed")):
            tensors[name] = tensors[name] * 2e-3
    model.load_state_dict(tensors, strict=False)
    return network(model, cases.PROMPTS, SEED)


if __name__ == "__main__":
    main()
