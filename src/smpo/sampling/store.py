"""The store of image sets: the same weights, prompts and options are generated only once, whichever recipe asks.

A stored set lies in a folder that is named by the hash of weights, prompts and options; it has no categories. A
recipe's own set is a small artefact: it lists the prompts with their categories, and points to the stored pixels.
"""

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from smpo.core.artefacts import (
    Status,
    begin,
    fingerprint,
    fingerprint_of,
    finish,
    read_manifest,
    write_atomically,
)
from smpo.core.locks import exclusive
from smpo.core.processes import main_first, this_process, wait_for_all
from smpo.prompts import Prompt, Source
from smpo.sampling.image_set import PIXELS, STAGE, TABLE
from smpo.sampling.options import GenerationOptions
from smpo.sampling.sets import ImageSetReport, ImageSetSpec, Progress, generate_set, num_images_in


def generate_shared(
    model: str, prompts: Source, out: Path, *, store: Path, options: GenerationOptions,
    progress: Progress | None = None,
) -> ImageSetReport:
    """The report of a complete image set in `out`; its pixels lie in `store`, which all recipes share.

    When two runs need the same set at the same time, one generates it, and the other waits.

    Args:
        model: diffusers pipeline folder, hub id (may end in `@revision`), `package://module/folder` or single file.
        prompts: texts, prompts, or a source of them; see `smpo.prompts.read_prompts`.
        out: folder of the recipe's own set.
        store: folder of all stored sets.
        options: options of the generation.
        progress: called with (images done, images in all).

    Raises:
        SmpoError: as in `generate_images`.
    """
    started = time.monotonic()
    spec = ImageSetSpec.of(model, prompts, options)
    bare = replace(spec, prompts=tuple(Prompt(prompt.text) for prompt in spec.prompts))
    status = main_first("open the image set", lambda: begin(out, stage=STAGE, settings=spec.settings, inputs={}))
    folder = store / "images" / fingerprint(bare.settings)[:32]

    def waiting() -> None:
        if progress is not None:
            progress(num_images_in(folder), len(bare.rows))

    with exclusive(folder, waiting) if this_process().is_main else nullcontext():
        report = generate_set(bare, folder, progress=progress)
    if this_process().is_main:
        write_pointer(spec, out, folder, status)
    wait_for_all("finish the image set")
    return replace(
        report, folder=out, fingerprint=fingerprint_of(out, stage=STAGE), seconds=time.monotonic() - started
    )


def write_pointer(spec: ImageSetSpec, out: Path, folder: Path, status: Status) -> None:
    """Write the recipe's set, unless it points to these pixels already."""
    stored, notes = read_manifest(folder, stage=STAGE), {PIXELS: os.path.relpath(folder, out)}
    if status is Status.DONE:
        written = read_manifest(out, stage=STAGE)
        if (written["results"], written.get("notes")) == (stored["results"], notes):
            return
    write_atomically(out / TABLE, spec.table)
    finish(out, stored["results"], files=[TABLE], notes=notes)
