"""Format `folders`: `win/` and `lose/` with equally named images, and a prompt for each name."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from smpo.data.files import fingerprint_files
from smpo.data.images import content_uid
from smpo.data.records import RawPair, broken_row
from smpo.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PROMPT_FILES = ("prompts.jsonl", "metadata.jsonl")


@dataclass(frozen=True)
class FolderPairs:
    """A folder with the sub-folders `win` (image 0 of each pair) and `lose` (image 1).

    The prompt of `win/a.png` is the text of `win/a.txt`, or else stands in `prompts.jsonl` or `metadata.jsonl`, in the
    folder or in `win`, as {"file_name": "a.png", "prompt": ...} (`text` and `caption` are accepted as well).

    Attributes:
        source: path of the folder.
        split: not supported; use one folder per split.
    """

    source: str
    split: str | None = None
    has_labels = True

    def __post_init__(self) -> None:
        if self.split is not None:
            raise DataError(f"format folders has no splits, got split '{self.split}'; use one folder per split")
        for side in ("win", "lose"):
            if not (Path(self.source) / side).is_dir():
                raise DataError(f"{self.source} has no sub-folder {side}; format folders needs win and lose")
        if not self._names:
            raise DataError(f"{self.source} holds no images in win and lose; accepted: {' '.join(IMAGE_SUFFIXES)}")

    @cached_property
    def _files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Stem -> image, for win and for lose."""
        return tuple(_images_by_stem(Path(self.source) / side) for side in ("win", "lose"))

    @cached_property
    def _names(self) -> list[str]:
        winners, losers = self._files
        return sorted({*winners, *losers})

    @cached_property
    def _prompts(self) -> dict[str, str]:
        """Stem -> prompt, from the prompt files."""
        prompts: dict[str, str] = {}
        for file in self._prompt_files():
            prompts |= _read_prompts(file)
        return prompts

    def _prompt_files(self) -> list[Path]:
        folders = (Path(self.source), Path(self.source) / "win")
        return [folder / name for folder in folders for name in PROMPT_FILES if (folder / name).is_file()]

    def __len__(self) -> int:
        return len(self._names)

    def fingerprint(self) -> str:
        """Digest of the prompts' texts and of the names, sizes and times of the images."""
        root = Path(self.source)
        texts = [*self._prompt_files(), *sorted((root / "win").glob("*.txt"))]
        images = [by_stem[name] for by_stem in self._files for name in sorted(by_stem)]
        return fingerprint_files(texts, root=root) + fingerprint_files(images, root=root, peek=False)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`, in the order of their names."""
        return (self._raw_pair(row) for row in rows)

    def _raw_pair(self, row: int) -> RawPair:
        name = self._names[row]
        for side, by_stem in zip(("win", "lose"), self._files, strict=True):
            if name not in by_stem:
                return broken_row(row, "missing_image", f"no image {side}/{name}.*", pair_id=name)
        image_0, image_1 = (by_stem[name].read_bytes() for by_stem in self._files)
        return RawPair(row, name, self._prompt(name), image_0, image_1, 1.0, content_uid(image_0), content_uid(image_1))

    def _prompt(self, name: str) -> str:
        text = Path(self.source) / "win" / f"{name}.txt"
        return text.read_text(encoding="utf-8").strip() if text.is_file() else self._prompts.get(name, "")


def _images_by_stem(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in images:
            raise DataError(f"{images[path.stem]} and {path} have one name; pairs are matched by it, so rename one")
        images[path.stem] = path
    return images


def _read_prompts(file: Path) -> dict[str, str]:
    prompts = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            text = next(values[key] for key in ("prompt", "caption", "text") if key in values)
            prompts[Path(values["file_name"]).stem] = str(text)
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise DataError(f'{file} line {number} must be {{"file_name": ..., "prompt": ...}}; correct it') from error
    return prompts
