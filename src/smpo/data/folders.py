"""Format `folders`: two folders (`win/`, `lose/`) or the ends of file names (`cat_w.png`, `cat_l.png`) make pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from smpo.core.errors import DataError
from smpo.data.entries import ENTRIES
from smpo.data.files import fingerprint_files
from smpo.data.image_text import prompt_in
from smpo.data.images import content_uid
from smpo.data.layouts import NAMES, LayoutFinder
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
    """Two sub-folders whose images have equal names, with the preferred images in the first; or one folder of both.

    `SIDES` lists the names of the sub-folders, `ENDS` the ends of file names in one folder; case does not matter. The
    prompt of `win/a.png` is the text of `a.txt` or `a.caption` in `win` or in the folder itself. Without these it is
    read from one of `PROMPT_FILES` there, from columns file_name and prompt (or caption, or text), and without that
    from the texts that AUTOMATIC1111 or ComfyUI write into images.

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
        if not self._names:
            raise DataError(f"{self.source} holds no images in {_listed([self._sides], '/')}; "
                            f"accepted: {' '.join(IMAGE_SUFFIXES)}")

    has_labels = True

    @cached_property
    def _sides(self) -> tuple[str, str]:
        """The names of the two sub-folders, or the two ends of file names."""
        sides = sides_of(Path(self.source)) or ends_of(Path(self.source))
        if sides is None:
            raise DataError(f"{self.source} has no two sub-folders of images ({_listed(SIDES, '/')}) and no images in "
                            f"pairs by the ends of their names ({_listed(ENDS, '.png')})")
        return sides

    @cached_property
    def _folders(self) -> list[Path]:
        """The two sub-folders; none if the ends of names make the pairs."""
        return [Path(self.source) / side for side in sides_of(Path(self.source)) or ()]

    @cached_property
    def _files(self) -> list[Images]:
        """Name of the pair -> image, of the preferred images and of the others."""
        ends = self._sides
        if self._folders:
            return [images_by_stem(folder) for folder in self._folders]
        stems = images_by_stem(Path(self.source))
        return [{stem[:-len(end)]: path for stem, path in stems.items() if stem.casefold().endswith(end)}
                for end in ends]

    @cached_property
    def _names(self) -> list[str]:
        return sorted({name for by_name in self._files for name in by_name})

    @property
    def _prompt_folders(self) -> list[Path]:
        return [Path(self.source), *self._folders[:1]]

    @cached_property
    def _prompts(self) -> dict[str, str]:
        """File name without suffix -> prompt, from the prompt files."""
        prompts: dict[str, str] = {}
        for file in self._prompt_files():
            prompts |= _read_prompts(file)
        return prompts

    def _prompt_files(self) -> list[Path]:
        return [folder / name for folder in self._prompt_folders for name in PROMPT_FILES if (folder / name).is_file()]

    def __len__(self) -> int:
        return len(self._names)

    def describe(self) -> str:
        """The folders or ends of names that make the pairs, and the prompt files, for people."""
        text = _listed([self._sides], "/") if self._folders else f"names that end in {_listed([self._sides], '')}"
        return f"{text}; prompts beside the images{''.join(f', in {file.name}' for file in self._prompt_files())}"

    def fingerprint(self) -> str:
        """Digest of the names and contents of prompt files and images."""
        root = Path(self.source)
        beside = [path for folder in self._prompt_folders for suffix in CAPTION_SUFFIXES
                  for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")]
        images = [by_name[name] for by_name in self._files for name in sorted(by_name)]
        texts = [*self._prompt_files(), *sorted(beside)]
        return fingerprint_files([*texts, *images], root=root)

    def read(self, rows: Sequence[int]) -> Iterator[RawPair]:
        """The pairs at the ascending positions `rows`; pairs are ordered by name."""
        return (self._raw_pair(row) for row in rows)

    def _raw_pair(self, row: int) -> RawPair:
        name = self._names[row]
        joined = "{}/{}" if self._folders else "{1}{0}"
        places = [joined.format(side, name) for side in self._sides]
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
        stems = [name]
        if not self._folders:
            stems += [by_name[name].stem for by_name in self._files if name in by_name]
        for folder in reversed(self._prompt_folders):
            for file in (folder / f"{stem}{suffix}" for stem in stems for suffix in CAPTION_SUFFIXES):
                if file.is_file():
                    try:
                        return as_text(read_text(file).strip(), name=file.name)
                    except DataError as error:
                        raise RowProblem("malformed_row", str(error)) from error
        return next((self._prompts[stem] for stem in stems if stem in self._prompts), "")


def sides_of(folder: Path) -> tuple[str, str] | None:
    """The names of two sub-folders of `folder` that make pairs, in the case that they have; None without such."""
    names = {path.name.casefold(): path.name for path in sorted(folder.iterdir()) if path.is_dir()}
    return next(((names[first], names[second]) for first, second in SIDES if {first, second} <= set(names)), None)


def ends_of(folder: Path) -> tuple[str, str] | None:
    """The two ends of file names that make pairs in `folder`: those with which at least one pair is complete."""
    stems = {path.stem.casefold() for path in folder.iterdir() if is_image(path)}
    return next(((first, second) for first, second in ENDS if any(
        stem.endswith(first) and f"{stem[:-len(first)]}{second}" in stems for stem in stems)), None)


def is_image(path: Path) -> bool:
    """Whether `path` has the name of an image; hidden files, such as macOS's ._a.png, do not count."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def images_by_stem(folder: Path) -> Images:
    """File name without suffix -> image of `folder`.

    Raises:
        DataError: two names differ only in the suffix.
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
    """(the prompt in the images' own texts, True), or ("", False) if there is none."""
    prompts = [prompt for data in (image_0, image_1) if (prompt := prompt_in(data))]
    if len(set(prompts)) > 1:
        raise RowProblem("malformed_row", f"the images were made with two prompts: {shown(prompts[0])} and "
                         f"{shown(prompts[1])}; write the pair's into a .txt file")
    return (as_text(prompts[0], name="the image's prompt"), True) if prompts else ("", False)


def _read_prompts(file: Path) -> dict[str, str]:
    """File name without suffix -> prompt, of a table of prompts."""
    prompts = {}
    entries = list(ENTRIES[file.suffix](file))
    if entries and all(entry.values and LayoutFinder().of(entry.values) for entry in entries):
        return {}  # a table of pairs, as datasets' imagefolder has it
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
