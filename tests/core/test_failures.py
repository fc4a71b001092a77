"""Errors of the surroundings as lines: every kind has what happened, the path where there is one, and a way out."""

import errno
import json
import zipfile
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from smpo.core.errors import DataError
from smpo.core.failures import BY_NUMBER, described


def caught(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("number", BY_NUMBER, ids=errno.errorcode.get)
def test_every_number_of_the_operating_system_has_what_and_way_out(number: int) -> None:
    line = described(OSError(number, "as the system puts it", "/some/where"))
    what, way_out = BY_NUMBER[number]
    assert line == f"/some/where: {what}; {way_out}"


def test_other_numbers_two_paths_and_no_path() -> None:
    assert "Cannot assign" in described(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"))
    assert described(OSError(errno.EXDEV, "x", "a", None, "b")).startswith("a -> b: ")
    assert described(OSError(errno.ENOSPC, "x")).startswith("the disk is full; ")
    assert described(OSError(errno.ENAMETOOLONG, "x", "n" * 5000)).startswith("n" * 80 + "...: the name is too long")


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: out of memory"), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
])
def test_full_memory_names_what_lowers_it(error: Exception) -> None:
    line = described(error)
    assert all(word in line for word in ("micro_batch_size", "gradient_checkpointing", "`smpo cost`"))


@pytest.mark.parametrize(("error", "words"), [
    (RuntimeError("Found no NVIDIA driver on your system."), "the device cannot be used"),
    (RuntimeError("CUDA error: invalid device ordinal"), "the device cannot be used"),
    (AssertionError("Torch not compiled with CUDA enabled"), "the device cannot be used"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a worker process was killed"),
    (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "a worker process was killed"),
    (BrokenProcessPool("A process in the process pool was terminated abruptly while"), "a worker process was killed"),
    (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), "another process"),
    (ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"), "pip install 'smpo[8bit]'"),
    (ModuleNotFoundError("No module named 'wandb.x'", name="wandb.x"), "the package wandb is needed"),
    (ImportError("libfoo.so: cannot open shared object file", name="foo"), "a package cannot be used (libfoo.so"),
    (OSError("someone/model is not a local folder and is not a valid model identifier"), "someone/model is not a"),
    (OSError("Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
             "OSError: [Errno 28] No space left on device: '/data/a'\n"), "/data/a: the disk is full"),
    (DataError("Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
               "  File x\nsmpo.errors.DataError: a.png: no image; correct it\n"), "a.png: no image; correct it"),
    (DataError("two\nlines"), "two lines"),
])
def test_libraries_errors_are_recognised(error: Exception, words: str) -> None:
    line = described(error)
    assert words in line and "\n" not in line


def test_damaged_files_are_named_even_where_the_parser_does_not(tmp_path: Path) -> None:
    def read(name: str, parse: Callable[[Path], object]) -> str:
        path = tmp_path / name
        path.write_bytes(b"\x80not what it should be")
        return described(caught(lambda: parse(path)))

    for name, parse in (
        ("a.safetensors", safetensors.torch.load_file), ("a.parquet", pq.read_table),
        ("a.bin", lambda path: torch.load(path, weights_only=True)), ("a.npy", lambda path: zipfile.ZipFile(path)),
        ("a.json", lambda path: json.loads(path.read_text())),
        ("a.jsonl", lambda path: json.loads(path.read_text("latin-1"))),
    ):
        assert read(name, parse).startswith(f"{tmp_path / name}: the file is damaged"), name
    assert "the file is damaged" in read("a.png", lambda path: Image.open(path))


def test_deep_json_is_a_damaged_file_and_deep_calls_of_ours_are_a_bug(tmp_path: Path) -> None:
    def endless() -> None:
        endless()

    assert "the file is damaged" in described(caught(lambda: json.loads("[" * 200_000)))
    assert described(caught(endless)) is None


@pytest.mark.parametrize("error", [
    KeyError("x"), TypeError("x"), AttributeError("x"), ValueError("x"), IndexError("x"), ZeroDivisionError(),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), AssertionError(),
    ModuleNotFoundError("No module named 'smpo.x'", name="smpo.x"),
])
def test_what_only_we_can_mend_is_not_described(error: Exception) -> None:
    assert described(error) is None
