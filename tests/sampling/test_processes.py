"""One image set by several processes, killed ones among them: the files of a straight run, each made once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smpo.core import parts
from smpo.core.errors import DataError, ProcessError
from smpo.core.processes import this_process
from smpo.sampling import sets
from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.sets import generate_images
from tests.ranks import ranked

PROMPTS = [f"number {i} of seven" for i in range(7)]
FAST = GenerationOptions(num_inference_steps=2, batch_size=2)
FILES = [f"images/{i:05d}.png" for i in range(7)]


@pytest.fixture(scope="module")
def straight(random_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    out = tmp_path_factory.mktemp("straight") / "set"
    generate_images(str(random_sd), PROMPTS, out, options=FAST)
    return ImageSet.open(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {file: (folder / file).read_bytes() for file in FILES if (folder / file).exists()}


def worker(
    model: Path, out: Path, *, before: Callable[[int, Path], None] = lambda rank, path: None
) -> Callable[[], None]:
    """One process's work; `before(rank, path)` runs before it writes an image. It logs prompts, files and errors."""
    write, render = parts.write_atomically, sets.render

    def noting_batch(pipeline: object, prompts: list[str], *seeds: object, **options: object) -> object:
        with open(out.parent / "generated", "a") as notes:
            notes.write(json.dumps(prompts) + "\n")
        return render(pipeline, prompts, *seeds, **options)

    def noting(path: Path, content: str | bytes) -> None:
        if path.suffix == ".png":
            before(this_process().rank, path)
            with open(out.parent / f"wrote-{this_process().rank}", "a") as notes:
                notes.write(f"images/{path.name}\n")
        write(path, content)

    def work() -> None:
        torch.set_num_threads(1)
        parts.write_atomically, sets.render = noting, noting_batch  # in this forked process only
        try:
            generate_images(str(model), PROMPTS, out, options=FAST)
        except (ProcessError, DataError) as error:
            (out.parent / f"error-{this_process().rank}").write_text(str(error))
            raise SystemExit(1) from error

    return work


def written(out: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted(out.parent.glob("wrote-*"))]


@pytest.mark.parametrize("world_size", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_several_processes_make_each_image_once_and_as_one_does(
    straight: ImageSet, random_sd: Path, tmp_path: Path, world_size: int
) -> None:
    """Four batches; of five processes one has nothing to do."""
    out = tmp_path / "set"
    assert ranked(worker(random_sd, out), world_size) == [0] * world_size
    assert contents(out) == contents(straight.folder)
    shares = written(out)
    assert len(shares) == min(world_size, 4) and sorted(sum(shares, [])) == FILES
    assert ImageSet.open(out).fingerprint == straight.fingerprint


@pytest.mark.parametrize("then", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_other_and_another_number_carries_on(
    straight: ImageSet, random_sd: Path, tmp_path: Path, then: int
) -> None:
    """Process 1 dies inside its first batch (images 2 and 3), after the first of them, process 0 makes its own share.

    The half batch is generated whole again, so that its second image has the same neighbours as in a straight run.
    """
    out = tmp_path / "set"

    def die(rank: int, path: Path) -> None:
        if path.name == "00003.png":
            os.kill(os.getpid(), 9)

    assert ranked(worker(random_sd, out, before=die), 2) == [1, -9]
    assert "process 0 of 2 waited for the others to make their images" in (tmp_path / "error-0").read_text()
    with pytest.raises(DataError, match="is unfinished; run `smpo generate` again"):
        ImageSet.open(out)
    kept = {file: (out / file).stat().st_mtime_ns for file in contents(out)}
    assert sorted(kept) == [FILES[i] for i in (0, 1, 2, 4, 5)]
    assert ranked(worker(random_sd, out), then) == [0] * then
    assert contents(out) == contents(straight.folder)
    assert {file: (out / file).stat().st_mtime_ns for file in kept} == kept
    batches = [json.loads(line) for line in (tmp_path / "generated").read_text().splitlines()]
    assert sorted(batches[-2:]) == [PROMPTS[2:4], PROMPTS[6:]]
    assert ImageSet.open(out).fingerprint == straight.fingerprint


def test_a_fault_in_one_process_ends_the_other_with_a_message(random_sd: Path, tmp_path: Path) -> None:
    def refuse(rank: int, path: Path) -> None:
        if rank == 1:
            raise DataError("the image is entirely black")

    assert ranked(worker(random_sd, tmp_path / "set", before=refuse), 2) == [1, 1]
    assert (tmp_path / "error-1").read_text() == "the image is entirely black"
    assert "one of them has ended or cannot be reached; see its own message" in (tmp_path / "error-0").read_text()
