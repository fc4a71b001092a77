"""Images a second of `smpo score`, and of the released preprocessing's way: one image at a time, its prompt each time.

    python benchmarks/scoring.py --out benchmarks/results
    python benchmarks/scoring.py --full --out benchmarks/results     # a ViT-H/14 with random weights, in bfloat16

Both ways score the same pairs with the same model in the same process, in turns, several rounds. Ours is the whole
stage: reading the parquet file, worker processes, block files, the table. Theirs has the encoded images in memory and
writes nothing. On a machine with other work, more processes get a larger part of it; so the CPU time is reported too.
"""

import argparse
import datetime
import io
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip import CLIPImageProcessorPil

from smpo.core.processes import local_device
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.data.records import PairImages
from smpo.models.package_data import resolve_source
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import prepare_pairs
from smpo.preparation.score import ScoreTable, score_pairs
from smpo.rewards.options import ScoringOptions
from smpo.rewards.pickscore import PickScore
from smpo.rewards.scoring import num_workers
from smpo.tiny.prompts import phrase, sample_scenes
from smpo.tiny.scenes import Scene, draw

REWARD = "package://smpo.tiny/weights/tiny-reward"
PAIRS_A_PROMPT = 14  # Pick-a-Pic v2's training set: 851,293 pairs of 58,960 prompts
PARTS_OF = 128  # pairs whose parts are timed; the large model's first one only
CASES = {  # side in px, format, whether a pair's winner stays for the next one
    "64 px PNG": (64, "PNG", False),
    "512 px JPEG": (512, "JPEG", False),
    "512 px JPEG, the winner stays": (512, "JPEG", True),  # how Pick-a-Pic's pairs were made
}
VIT_H = {
    "text_config": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
                    "hidden_act": "gelu", "vocab_size": 49408, "max_position_embeddings": 77},
    "vision_config": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
                      "intermediate_size": 5120, "hidden_act": "gelu", "patch_size": 14, "image_size": 224},
    "projection_dim": 1024,
}


def make_pairs(folder: Path, pairs: int, *, size: int, format: str, winner_stays: bool) -> PairSet:
    """Pairs of drawn scenes, `PAIRS_A_PROMPT` to a prompt; enlarged ones get a film's grain.

    All images differ, or, as in Pick-a-Pic, the winner of a pair stands against a new image in the prompt's next pair.
    """
    rng = np.random.default_rng(0)
    scenes = sample_scenes(-(-pairs // PAIRS_A_PROMPT), seed=0, split="train")
    prompts, rows = [phrase(scene, rng) for scene in scenes], []
    for row in range(pairs):
        prompt, place = divmod(row, PAIRS_A_PROMPT)
        uids, images = [f"{row}-0", f"{row}-1"], [encoded(scenes[prompt], rng, size, format) for _ in range(2)]
        if winner_stays and place:
            uids[0], images[0] = rows[-1]["image_0_uid"], rows[-1]["jpg_0"]
        if row % 2:  # so that the next pair keeps either of the two
            uids, images = uids[::-1], images[::-1]
        rows.append({"ranking_id": row, "caption": prompts[prompt], "label_0": 1.0, "jpg_0": images[0],
                     "jpg_1": images[1], "image_0_uid": uids[0], "image_1_uid": uids[1]})
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet", row_group_size=100, compression="none")
    prepare_pairs(str(folder / "pairs.parquet"), folder / "pairs", options=PairOptions(format="parquet"))
    return PairSet.open(folder / "pairs")


def encoded(scene: Scene, rng: np.random.Generator, size: int, format: str) -> bytes:
    """A drawing of the scene, `size` px wide and high, as a file's bytes."""
    image, stream = draw(scene, rng), io.BytesIO()
    if size != image.width:
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        image = Image.fromarray((pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))
    image.save(stream, format, **({"quality": 90} if format == "JPEG" else {}))
    return stream.getvalue()


class OneAtATime:
    """The released preprocessing's way: transformers' processors, one image and its prompt per forward pass."""

    def __init__(self, source: str, processor: str, dtype: torch.dtype) -> None:
        self.images = CLIPImageProcessorPil.from_pretrained(processor)
        self.tokenizer = CLIPTokenizer.from_pretrained(processor)
        self.model = CLIPModel.from_pretrained(source, dtype=dtype).eval().to(local_device())

    @torch.no_grad()
    def score(self, data: bytes, prompt: str) -> float:
        """The cosine of one image with one prompt."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        pixels = self.images(images=[image], return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self.model.device, self.model.dtype)
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([prompt], padding=True, truncation=True, max_length=length, return_tensors="pt")
        features = [self.model.get_image_features(pixels).pooler_output,
                    self.model.get_text_features(tokens["input_ids"].to(self.model.device)).pooler_output]
        image_features, text_features = (each.float() / each.float().norm(dim=-1, keepdim=True) for each in features)
        return (image_features * text_features).sum().item()


@dataclass(frozen=True)
class Cost:
    """Wall-clock and CPU time, s; the CPU time is that of all processes that took part."""

    wall: float
    cpu: float


def cost_of(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """What `work` returns, and its cost."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = work()
    return result, Cost(time.perf_counter() - wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def score_one_at_a_time(pairs: list[PairImages], model: OneAtATime) -> torch.Tensor:
    """Scores, shape (pairs, 2)."""
    return torch.tensor([[model.score(data, pair.caption) for data in (pair.image_0, pair.image_1)] for pair in pairs])


def score_by_stage(pairs: PairSet, scorer: PickScore, options: ScoringOptions) -> torch.Tensor:
    """Scores, shape (pairs, 2), by the whole stage."""
    with tempfile.TemporaryDirectory() as out:
        score_pairs(pairs, {"scorer": scorer}, Path(out), options=options)
        table = ScoreTable.open(Path(out) / "scorer")
    return torch.stack([table.score_0, table.score_1], dim=1)


def compare(pairs: PairSet, settings: dict[str, Any], *, rounds: int, options: ScoringOptions) -> dict[str, Any]:
    """Both ways in turns; medians over the rounds, and the largest difference between their scores."""
    files, images = list(pairs.iter_images()), 2 * len(pairs)
    model = OneAtATime(*(resolve_source(settings[key]) for key in ("source", "processor")),
                       getattr(torch, settings["dtype"]))
    model.score(files[0].image_0, "warm up")
    ours, theirs = [], []
    for _ in range(rounds):
        expected, cost = cost_of(partial(score_one_at_a_time, files, model))
        theirs.append(cost)
        scorer = PickScore(**settings)  # without any prompt's features yet
        scorer.identity()
        scorer([decode_image(files[0].image_0)], ["warm up"])
        scores, cost = cost_of(partial(score_by_stage, pairs, scorer, options))
        ours.append(cost)
    medians = {way: (statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))
               for way, costs in (("one_at_a_time", theirs), ("ours", ours))}
    return {
        "images": images, "different_images": len({uid for both in pairs.uids for uid in both}),
        "prompts": len(set(pairs.captions)), "rounds": rounds,
        "kb_an_image": round(sum(len(p.image_0) + len(p.image_1) for p in files) / images / 1e3, 1),
        "images_per_s": {way: round(images / wall, 3) for way, (wall, _) in medians.items()},
        "cpu_ms_an_image": {way: round(1e3 * cpu / images, 3) for way, (_, cpu) in medians.items()},
        "speedup": round(medians["one_at_a_time"][0] / medians["ours"][0], 2),
        "speedup_each_round": [round(b.wall / a.wall, 2) for a, b in zip(ours, theirs, strict=True)],
        "speedup_in_cpu_time": round(medians["one_at_a_time"][1] / medians["ours"][1], 2),
        "largest_difference_of_scores": (scores - expected).abs().max().item(),
        "our_cpu_ms_an_image_by_part": shares(files, settings, options),
    }


def shares(pairs: list[PairImages], settings: dict[str, Any], options: ScoringOptions) -> dict[str, Any]:
    """CPU milliseconds an image and share of each part of our work, one after the other in one process."""
    timed = PARTS_OF if settings["source"] == REWARD else 1
    files = [(data, pair.caption) for pair in pairs[:timed] for data in (pair.image_0, pair.image_1)]
    scorer = PickScore(**settings)
    images, decoding = cost_of(lambda: [decode_image(data) for data, _ in files])
    inputs, preprocessing = cost_of(lambda: [scorer.preprocessing(image) for image in images])
    scorer.score(inputs[0][None], ["warm up"])
    prompts, size = [prompt for _, prompt in files], options.batch_size

    def model() -> None:
        for start in range(0, len(inputs), size):
            scorer.score(torch.stack(inputs[start : start + size]), prompts[start : start + size])

    _, first = cost_of(model)   # with the prompts' features
    _, second = cost_of(model)  # which are kept
    parts = {"decoding": decoding.cpu, "preprocessing": preprocessing.cpu, "image model": second.cpu,
             "prompts": max(0.0, first.cpu - second.cpu)}
    return {name: {"ms": round(1e3 * seconds / len(files), 3), "share": round(seconds / sum(parts.values()), 3)}
            for name, seconds in parts.items()}


def random_vit_h(folder: Path) -> Path:
    """A ViT-H/14 CLIPModel with random bfloat16 weights, the tiny reward's tokenizer, and a 224 px processor."""
    reward = Path(resolve_source(REWARD))
    config = CLIPConfig(**VIT_H)
    with torch.device("meta"):
        model = CLIPModel(config)
    generator = torch.Generator().manual_seed(0)
    weights = {name: (0.02 * torch.randn(value.shape, generator=generator)).to(torch.bfloat16)
               for name, value in model.state_dict().items() if not name.endswith("position_ids")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((reward / name).read_bytes())
    processor = json.loads((reward / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, help="pairs of a case; default 448, with --full 3")
    parser.add_argument("--rounds", type=int, help="default 3, with --full 1")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--full", action="store_true", help="a random ViT-H/14 instead of the tiny reward model")
    parser.add_argument("--out", type=Path, help="folder for the JSON result")
    args = parser.parse_args()
    options = ScoringOptions(workers=args.workers)
    cases = {name: case for name, case in CASES.items() if not args.full or name == "512 px JPEG"}
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source, dtype = (str(random_vit_h(Path(tempfile.mkdtemp(dir=root)))), "bfloat16") if args.full \
            else (REWARD, "float32")
        settings = {"source": source, "processor": source, "dtype": dtype}
        for name, (size, format, winner_stays) in cases.items():
            number = args.pairs or (3 if args.full else 448)
            pairs = make_pairs(root / name, number, size=size, format=format, winner_stays=winner_stays)
            results[name] = compare(pairs, settings, rounds=args.rounds or (1 if args.full else 3), options=options)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    report = {
        "model": "ViT-H/14, random weights" if args.full else "tiny-reward", "dtype": dtype, "cases": results,
        "workers": num_workers(options), "batch_size": options.batch_size, "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1), "device": device,
        "torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(report, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"scoring-{'vit-h-14' if args.full else 'tiny'}.json"
        (args.out / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
