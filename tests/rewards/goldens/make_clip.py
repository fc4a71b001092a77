"""Asks open_clip 3.3.0, torchvision 0.28.0 and hpsv2 1.2.0. Not a test: see README.md.

    PYTHONPATH=. REFERENCE/bin/python -m tests.rewards.goldens.make_clip PartiPrompts.tsv OUT [--full]
"""

import csv
import gzip
import hashlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

OPERATORS = torch.library.Library("torchvision", "DEF")  # torchvision's binary part, which would, needs CUDA
OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
import torchvision.transforms.functional as TF  # noqa: E402
from open_clip.tokenizer import SimpleTokenizer, default_bpe  # noqa: E402
from torchvision import transforms as T  # noqa: E402

from tests.rewards.goldens import cases  # noqa: E402
from tests.rewards.references import weights  # noqa: E402

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SEED = 3


def hpsv2_module(name: str):
    """A module of hpsv2's own open_clip, without running the package's __init__ files, which need removed packages."""
    root = Path(importlib.util.find_spec("hpsv2").origin).parent / "src" / "open_clip"
    package = sys.modules.setdefault("hps_open_clip", types.ModuleType("hps_open_clip"))
    package.__path__ = [str(root)]
    target = root / "bpe_simple_vocab_16e6.txt.gz"
    if not target.exists():  # the wheel lacks it
        target.write_bytes(Path(default_bpe()).read_bytes())
    return importlib.import_module(f"hps_open_clip.{name}")


def tokens(parti: Path) -> dict:
    """Ids of every hard prompt by the three tokenizers, and a digest over all of PartiPrompts."""
    prompts = [row["Prompt"] for row in csv.DictReader(parti.open(), delimiter="\t", quoting=csv.QUOTE_NONE)]
    found = {}
    for name, tokenizer in (("open_clip", SimpleTokenizer()), ("hpsv2", hpsv2_module("tokenizer").tokenize)):
        ids = {prompt: trimmed(tokenizer([prompt])[0].tolist()) for prompt in cases.HARD_PROMPTS}
        every = [trimmed(tokenizer([prompt])[0].tolist()) for prompt in prompts]
        found[name] = {"ids": ids, "parti_sha256": digest(every), "parti_prompts": len(prompts)}
    return found


def trimmed(ids: list[int]) -> list[int]:
    """Without the zeros after the last token."""
    return ids[: len(ids) - next(n for n, token in enumerate(reversed(ids)) if token)]


def digest(rows: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def preprocessing() -> dict[str, np.ndarray]:
    """Thinned pixel values of every picture by torchvision's P1 and hpsv2's P2 with both kinds of resizing."""
    shortest = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), lambda i: i.convert("RGB"),
                          T.ToTensor(), T.Normalize(MEAN, STD)])
    found = {}
    for size in cases.SIZES:
        found[f"shortest-{size[0]}x{size[1]}"] = cases.thinned(shortest(cases.picture(size))).numpy()
    module = hpsv2_module("transform")
    resize = TF.resize
    for antialias in (False, True):
        module.F.resize = lambda image, new_size, mode, antialias=antialias: resize(
            image, new_size, mode, antialias=antialias)
        longest = module.image_transform(224, is_train=False, mean=MEAN, std=STD, resize_longest_max=True)
        for size in cases.SIZES:
            try:
                values = longest(cases.picture(size))
            except (RuntimeError, ValueError) as error:  # 1x40 px: a side of 0 px
                print("hpsv2 cannot:", size, str(error)[:70])
                continue
            found[f"longest-{size[0]}x{size[1]}-{antialias}"] = cases.thinned(values).numpy()
            print(size, antialias, tuple(values.shape))
    return found


def network(sizes: weights.ClipSizes, ids: list[list[int]], *, quick_gelu: bool, seed: int) -> list[float]:
    """Scores by open_clip's own CLIP, loaded strictly from random weights in its layout."""
    vision = {"image_size": 224, "layers": sizes.vision.layers, "width": sizes.vision.width,
              "head_width": sizes.vision.head, "patch_size": sizes.vision.patch}
    text = {"context_length": 77, "vocab_size": sizes.vocabulary, "width": sizes.text.width,
            "heads": sizes.text.heads, "layers": sizes.text.layers}
    with torch.device("meta"):
        model = open_clip.CLIP(sizes.projection, vision, text, quick_gelu=quick_gelu)
    tensors = weights.random_tensors(weights.open_clip_shapes(sizes), seed)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.attn_mask = model.build_causal_mask() if hasattr(model, "build_causal_mask") else torch.full(
        (77, 77), -torch.inf).triu(1)
    model.eval()
    with torch.no_grad():
        image = model.encode_image(cases.pixel_values(seed, len(ids)), normalize=True)
        words = model.encode_text(cases.padded(ids), normalize=True)
    return (image * words).sum(-1).tolist()


def main() -> None:
    parti, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (out / "clip-merges.txt.gz").write_bytes(gzip.compress("\n".join(merges).encode(), 9, mtime=0))
    found = tokens(parti)
    ids = [found["open_clip"]["ids"].get(p) or trimmed(SimpleTokenizer()([p])[0].tolist()) for p in cases.PROMPTS]
    np.savez_compressed(out / "preprocessing.npz", **preprocessing())
    scores = {"ids": ids, "reduced_gelu": network(weights.REDUCED_HPS, ids, quick_gelu=False, seed=SEED),
              "reduced_quick_gelu": network(weights.REDUCED_OPENAI, ids, quick_gelu=True, seed=SEED)}
    if "--full" in sys.argv:
        scores["full_gelu"] = network(weights.VIT_H, ids[:1], quick_gelu=False, seed=SEED)
    versions = {"open_clip": open_clip.__version__, "torch": torch.__version__, "torchvision": "0.28.0",
                "hpsv2": "1.2.0"}
    golden = {"versions": versions, "seed": SEED, "tokens": found, "scores": scores}
    (out / "clip.json").write_text(json.dumps(golden, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
