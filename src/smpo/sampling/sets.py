"""Generation of image sets, by one process or by many; images that exist are not generated again."""

import importlib.metadata
import io
import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from smpo.core.artefacts import (
    Artefact,
    Status,
    begin,
    fingerprint,
    fingerprint_of,
    finish,
    read_manifest,
    write_atomically,
)
from smpo.core.parts import Parts
from smpo.core.processes import local_device, main_first, shard, this_process, wait_for_all
from smpo.models.part_digests import check_trained, pipeline_digests
from smpo.models.sources import local_pipeline
from smpo.prompts import Prompt, Source, read_prompts
from smpo.sampling.image_set import STAGE, TABLE
from smpo.sampling.options import GenerationOptions
from smpo.sampling.pipelines import load_pipeline, pipeline_class
from smpo.sampling.rendering import black_images, image_seed, render

BLACK = "black_images"
"""Key of a manifest's notes: the files of the set that are entirely black."""
Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class ImageSetReport:
    """What a call did.

    Attributes:
        folder: folder of the image set.
        num_images: images of the set.
        num_made: images that this call generated, with all its processes.
        skipped: whether the set was complete before.
        seconds: duration of the call, s.
        fingerprint: of the image set.
        num_black: entirely black images; the manifest's notes list them.
    """

    folder: Path
    num_images: int
    num_made: int
    skipped: bool
    seconds: float
    fingerprint: str
    num_black: int = 0

    @property
    def black(self) -> str:
        """A note on the black images: ", 2 of them entirely black", or empty text."""
        return f", {self.num_black} of them entirely black" if self.num_black else ""


@dataclass(frozen=True)
class ImageSetSpec:
    """What determines an image set: the model and the digests of its parts, the prompts, the completed options."""

    model: str
    identity: dict[str, str]
    prompts: tuple[Prompt, ...]
    options: GenerationOptions

    @classmethod
    def of(cls, model: str, prompts: Source, options: GenerationOptions) -> "ImageSetSpec":
        """The image set of `prompts`, with the pipeline's own defaults; errors as `generate_images`."""
        read, folder = tuple(read_prompts(prompts)), local_pipeline(model)
        if this_process().is_main:
            check_trained(folder)
        return cls(model, pipeline_digests(folder), read, options.completed(pipeline_class(folder)))

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that determines the set, for its manifest."""
        labelled = any(prompt.labels() for prompt in self.prompts)
        listed = [asdict(prompt) if labelled else prompt.text for prompt in self.prompts]
        return {
            "model": self.identity,
            "options": self.options.decisive(),
            "prompts": {"count": len(self.prompts), "sha256": fingerprint(listed)},
        }

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row of the table per image; the images of one prompt are consecutive."""
        places = ((p, i) for p in range(len(self.prompts)) for i in range(self.options.images_per_prompt))
        return [
            {"index": index, "prompt": self.prompts[p].text, **self.prompts[p].labels(), "prompt_index": p,
             "image_index": i, "seed": image_seed(self.options.seed, p, i), "file": f"images/{index:05d}.png"}
            for index, (p, i) in enumerate(places)
        ]

    @property
    def table(self) -> str:
        """The rows as JSON lines."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)


def generate_images(
    model: str, prompts: Source, out: Path, *, options: GenerationOptions,
    progress: Progress | None = None, verb: str = STAGE,
) -> ImageSetReport:
    """Generate the missing images of a set; the report of the complete set in `out`.

    Several processes share the batches. Each returns when the set is complete.

    Args:
        model: diffusers pipeline folder, hub id (may end in `@revision`), `package://module/folder` or single file.
        prompts: texts, prompts, or a source of them; see `smpo.prompts.read_prompts`.
        out: folder of the image set.
        options: options of the generation.
        progress: called after every batch of this process, with the image count of all processes.
        verb: the `smpo` command that makes this set, for messages.

    Raises:
        ConfigError: the model cannot be found.
        StaleError: `out` holds images of another model, other prompts or other options.
        DataError: there are no prompts, a file was changed, or an image has non-finite pixels.
        ProcessError: another process ended before its share was complete.
    """
    return generate_set(ImageSetSpec.of(model, prompts, options), out, progress=progress, verb=verb)


def generate_set(spec: ImageSetSpec, out: Path, *, progress: Progress | None, verb: str = STAGE) -> ImageSetReport:
    """The report of the complete image set of `spec` in `out`; see `generate_images`."""
    started = time.monotonic()
    status = main_first("open the image set", lambda: begin(out, stage=STAGE, settings=spec.settings, inputs={}))
    made = 0
    if status is not Status.DONE:
        made = _make_missing(spec, out, progress)
    elif this_process().is_main:
        Artefact.open(out, stage=STAGE).check(verb=verb)  # images that are used again must be unchanged
    notes = read_manifest(out, stage=STAGE)["notes"]
    return ImageSetReport(
        out, len(spec.rows), made, skipped=status is Status.DONE, seconds=time.monotonic() - started,
        fingerprint=fingerprint_of(out, stage=STAGE), num_black=len(notes.get(BLACK, ())),
    )


def _make_missing(spec: ImageSetSpec, out: Path, progress: Progress | None) -> int:
    """Number of images that were missing; returns when every process has made its share and the set is complete."""
    if this_process().is_main:
        for leftover in (out / "images").glob("*.tmp-*"):  # of a killed run
            leftover.unlink(missing_ok=True)
    parts = main_first("look for finished images", lambda: Parts.open(out))
    missing = {row["file"] for row in spec.rows if row["file"] not in parts}
    _make(spec, missing, parts, progress)
    wait_for_all("make their images")
    if this_process().is_main:
        write_atomically(out / TABLE, spec.table)
        seals = parts.of_all()
        images = {row["file"]: seals[row["file"]] for row in spec.rows}
        pixels = fingerprint([seal.sha256 for seal in images.values()])
        results = {"num_images": len(spec.rows), "pixels": pixels}
        notes = _provenance(spec, black_images(out, images))
        finish(out, results, files=[TABLE], sealed=images, notes=notes)
    wait_for_all("finish the image set")
    return len(missing)


def _make(spec: ImageSetSpec, missing: Collection[str], parts: Parts, progress: Progress | None) -> None:
    """Make this process's share of the missing files.

    A batch is always generated whole, so that an image is computed with the same neighbours every time. Then its pixels
    are equal to the last bit, whichever process makes it and after any interruption.
    """
    size = spec.options.batch_size
    batches = [spec.rows[start : start + size] for start in range(0, len(spec.rows), size)]
    batches = shard([batch for batch in batches if any(row["file"] in missing for row in batch)])
    pipeline = load_pipeline(spec.model, spec.options) if batches else None
    for batch in batches:
        pixels = render(
            pipeline, [row["prompt"] for row in batch], [row["seed"] for row in batch], options=spec.options
        )
        for row, image in zip(batch, pixels, strict=True):
            if row["file"] in missing:
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG")
                parts.write(row["file"], buffer.getvalue())
        if progress is not None:
            progress(num_images_in(parts.folder), len(spec.rows))


def num_images_in(out: Path) -> int:
    """Number of images in the set's folder, of all processes and runs."""
    return sum(1 for _ in (out / "images").glob("*.png"))


def _provenance(spec: ImageSetSpec, black: list[str]) -> dict[str, Any]:
    """Notes for readers of the manifest; they are no part of the fingerprint."""
    device = local_device() if spec.options.device == "auto" else spec.options.device
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    return {"source": spec.model, "device": device, **versions, **({BLACK: black} if black else {})}
