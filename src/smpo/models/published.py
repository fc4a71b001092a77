"""What SD1.x's and SDXL's single files leave out and this package brings: configs, schedule and CLIP's tokenizer.

Folders of the layout that diffusers reads, one a family, without weights. The tokenizer is OpenAI's; its vocabulary is
made of its merges, which ship packed (published/NOTICE.md).
"""

import gzip
import json
from importlib.resources import files
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from smpo.models.saving import INDEX, copy_json, copy_tokenizer, parts_of, write_index

MERGES = "clip_merges.txt.gz"
ENDS = ("<|startoftext|>", "<|endoftext|>")
END_OF_WORD = "</w>"
HEAD = "#version: 0.2"


def published_folder(family: str) -> Path:
    """The configs of a family's published model: SD1.5's of "sd", SDXL base 1.0's of "sdxl"."""
    return Path(str(files("smpo.models"))) / "published" / family


def write_configs(configs: Path, out: Path) -> None:
    """Copy a pipeline's configs and vocabularies to `out`; a tokenizer folder without a vocabulary gets CLIP's."""
    index = json.loads((configs / INDEX).read_text())
    for part in [*parts_of(index), "unet"]:
        (out / part).mkdir(parents=True, exist_ok=True)
        if part.startswith("tokenizer"):
            _copy_tokenizer(configs / part, out / part)
        else:
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            copy_json(configs / part / name, out / part / name)
    write_index(index, out)


def _copy_tokenizer(source: Path, target: Path) -> None:
    if any((source / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        copy_tokenizer(source, target)
        return
    for path in source.glob("*.json"):
        copy_json(path, target / path.name)
    write_clip_vocabulary(target)


def write_clip_vocabulary(folder: Path) -> None:
    """Write CLIP's vocab.json and merges.txt: 49,408 tokens."""
    merges = gzip.decompress((files("smpo.models") / "published" / MERGES).read_bytes()).decode().splitlines()
    letters = sorted(ByteLevel.alphabet())
    tokens = [
        *letters, *(letter + END_OF_WORD for letter in letters), *(merge.replace(" ", "") for merge in merges), *ENDS
    ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join([HEAD, *merges]) + "\n", encoding="utf-8")
