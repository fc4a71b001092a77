"""Format `folders`: pairs told by folders (`win/`, `lose/`) or by the ends of names (`cat_w.png`, `cat_l.png`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from smpo.core.errors import DataError
from smpo.data.entries import ENTRIES
from smpo.data.files import fingerprint_files
from smpo.data.image_text import prompt_in
from smpo.data.images import content_uid
from smpo.data.layouts import NAMES, Readings
from smpo.data.records import RawPair, SourceOptions, broken_row
from smpo.data.text import read_text
from smpo.data.values import RowProblem, as_text, shown

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
CAPTION_SUFFIXES = (".txt", ".caption")
PROMPT_FILES = ("prompts.jsonl", "metadata.jsonl", "prompts.csv", "metadata.csv", "metadata.parquet")
SIDES = (("win", "lose"), ("chosen", "rejected"), ("w", "l"), ("winner", "loser"), ("preferred", "rejected"))
ENDS = (("_w", "_l"), ("_win", "_lose"), ("_chosen", "_rejected"), ("_winner", "_loser"))

Images = dict[str, Path]


@dataclass(frozen=True)
class FolderPairs:
    """Two sub-folders with equally named images, the preferred ones in the first, or one folder with names in pairs.

    The sub-folders are those of `SIDES`, the ends of names those of `ENDS`; case does not matter. The prompt of
    `win/a.png` is the text of `a.txt` or `a.caption` in `win` or in the folder itself, or else stands in one of
    `PROMPT_FILES` there, as file_name and prompt (or caption, or text). Where there is none, it is what AUTOMATIC1111
    or ComfyUI wrote into the images.

    Attributes:
        source: path of the folder.
        options: how it is read; it has no splits.
    """

    source: str
    options: SourceOptions

    def __post_init__(self) -> None:
        self.options.refuse_split("folder")
        if self.options.columns:
            raise DataError("format folders has no columns to rename; leave data.columns out")
        if self._place is None:
            raise DataError(f"{self.source} has no two sub-folders of images ({_listed(SIDES, '/')}) and no images in "
                            f"pairs by the ends of their names ({_listed(ENDS, '.png')})")
        if not self._names:
            raise DataError(f"{self.source} holds no images in {_listed([self._place], '/')}; "
                            f"accepted: {' '.join(IMAGE_SUFFIXES)}")

    has_labels = True

    @cached_property
    def _place(self) -> tuple[str, str] | None:
        """The names of the two sub-folders, or the two ends of names."""
        return sides_of(Path(self.source)) or ends_of(Path(self.source))

    @cached_property
    def _folders(self) -> tuple[Path, Path] | None:
        """The two sub-folders, where the pairs are told by them."""
        found = sides_of(Path(self.source))
        return (Path(self.source) / found[0], Path(self.source) / found[1]) if found else None

    @cached_property
    def _files(self) -> tuple[Images, Images]:
        """Name of the pair -> image, for the preferred and for the others."""
        if self._folders:
            winners, losers = (images_by_stem(folder) for folder in self._folders)
            return winners, losers
        assert self._place is not None
        stems = images_by_stem(Path(self.source))
        winners, losers = ({stem[:-len(end)]: path for stem, path in stems.items() if stem.casefold().endswith(end)}
                           for end in self._place)
        return winners, losers

    @cached_property
    def _names(self) -> list[str]:
        winners, losers = self._files
        return sorted({*winners, *losers})

    @property
    def _prompt_folders(self) -> list[Path]:
        return [Path(self.source), *([self._folders[0]] if self._folders else [])]

    @cached_property
    def _prompts(self) -> dict[str, str]:
        """File name without its ending -> prompt, from the prompt files."""
        prompts: dict[str, str] = {}
        for file in self._prompt_files():
            prompts |= _read_prompts(file)
        return prompts

    def _prompt_files(self) -> list[Path]:
        return [folder / name for folder in self._prompt_folders for name in PROMPT_FILES if (folder / name).is_file()]

    def __len__(self) -> int:
        return len(self._names)

    def describe(self) -> str:
        """What tells the sides, and which names of prompt files were found."""
        assert self._place is not None
        text = _listed([self._place], "/") if self._folders else f"names that end in {_listed([self._place], '')}"
        found = [file.name for file in self._prompt_files()]
        return f"{text}; prompts beside the images{''.join(f', in {name}' for name in found)}"

    def fingerprint(self) -> str:
        """Digest of the names and contents of prompt files and images."""
        root = Path(self.source)
        beside = [path for folder in self._prompt_folders for suffix in CAPTION_SUFFIXES
                  for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")]
        images = [by_name[name] for by_name in self._files for name in sorted(by_name)]
        texts = [*self._prompt_files(), *sorted(beside)]
        return fingerprint_files([*texts, *images], root=root)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`, in the order of their names."""
        return (self._raw_pair(row) for row in rows)

    def _raw_pair(self, row: int) -> RawPair:
        name = self._names[row]
        assert self._place is not None
        joined = "{}/{}" if self._folders else "{1}{0}"
        places = [joined.format(side, name) for side in self._place]
        try:
            for place, by_name in zip(places, self._files, strict=True):
                if name not in by_name:
                    raise RowProblem("missing_image", f"no image {place}.*")
            pair_id = as_text(name, name="the file's name")
            image_0, image_1 = (_read(by_name[name]) for by_name in self._files)
            prompt, embedded = self._prompt(name), False
            if not prompt.strip():
                prompt, embedded = _embedded(image_0, image_1)
        except RowProblem as problem:
            shown_name = name.encode("utf-8", "backslashreplace").decode()
            return broken_row(row, problem.reason, problem.detail, pair_id=shown_name, place=places[0])
        return RawPair(row, pair_id, prompt, image_0, image_1, 1.0, content_uid(image_0), content_uid(image_1),
                       place=places[0], caption_from_image=embedded)

    def _prompt(self, name: str) -> str:
        assert self._place is not None
        stems = [name] if self._folders else [name, *(path.stem for by_name in self._files
                                                      if (path := by_name.get(name)))]
        for folder in reversed(self._prompt_folders):
            for file in (folder / f"{stem}{suffix}" for stem in stems for suffix in CAPTION_SUFFIXES):
                if file.is_file():
                    try:
                        return as_text(read_text(file).strip(), name=file.name)
                    except DataError as error:
                        raise RowProblem("malformed_row", str(error)) from error
        return next((self._prompts[stem] for stem in stems if stem in self._prompts), "")


def sides_of(folder: Path) -> tuple[str, str] | None:
    """The names, as they are spelt there, of two sub-folders that hold the sides of pairs."""
    found = {path.name.casefold(): path.name for path in sorted(folder.iterdir()) if path.is_dir()}
    return next(((found[first], found[second]) for first, second in SIDES if {first, second} <= set(found)), None)


def ends_of(folder: Path) -> tuple[str, str] | None:
    """Two ends of names with which some image of `folder` has both sides."""
    stems = {path.stem.casefold() for path in folder.iterdir() if is_image(path)}
    return next(((first, second) for first, second in ENDS if any(
        stem.endswith(first) and f"{stem[:-len(first)]}{second}" in stems for stem in stems)), None)


def is_image(path: Path) -> bool:
    """Whether a name is that of an image; hidden files, such as macOS's ._a.png, are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def images_by_stem(folder: Path) -> Images:
    """Name without its ending -> image of `folder`.

    Raises:
        DataError: two images differ in their ending alone.
    """
    images: Images = {}
    for path in sorted(filter(is_image, folder.iterdir())):
        if path.stem in images:
            raise DataError(f"{images[path.stem]} and {path} have one name; pairs are matched by it, so rename one")
        images[path.stem] = path
    return images


def _listed(pairs: Sequence[tuple[str, str]], end: str) -> str:
    return ", ".join(f"{first}{end} and {second}{end}" for first, second in pairs)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise RowProblem("missing_image", f"{path.name} is no file")
        return path.read_bytes()
    except OSError as error:
        raise RowProblem("missing_image", f"{path.name} cannot be read ({error.strerror})") from error


def _embedded(image_0: bytes, image_1: bytes) -> tuple[str, bool]:
    """(the prompt that was written into the images, True), or ("", False)."""
    found = [prompt for data in (image_0, image_1) if (prompt := prompt_in(data))]
    if len(set(found)) > 1:
        raise RowProblem("malformed_row", f"the images were made with two prompts: {shown(found[0])} and "
                         f"{shown(found[1])}; write the pair's into a .txt file")
    return (as_text(found[0], name="the image's prompt"), True) if found else ("", False)


def _read_prompts(file: Path) -> dict[str, str]:
    """File name without its ending -> prompt, of a table of prompts."""
    prompts = {}
    entries = list(ENTRIES[file.suffix](file))
    if entries and all(entry.values and Readings().of(entry.values) for entry in entries):
        return {}  # a table of pairs, of datasets' imagefolder
    for entry in entries:
        values = entry.values or {}
        name = values.get("file_name")
        text = next((values[column] for column in NAMES["prompt"] if column in values), None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise DataError(f'{file.parent / entry.place} must be {{"file_name": ..., "prompt": ...}}; correct it')
        try:
            prompts[Path(name.replace("\\", "/")).stem] = as_text(text, name="the prompt")
        except RowProblem as problem:
            raise DataError(f"{file.parent / entry.place}: {problem.detail}; save the file as UTF-8") from problem
    return prompts
