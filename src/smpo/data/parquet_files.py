"""Opens and writes parquet files, and finds them in folders, where the hub's file names tell the splits."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smpo.core.artefacts import write_atomically
from smpo.core.errors import DataError

SHARD_NAME = re.compile(r"(?P<split>.+)-\d+-of-\d+.*\.parquet")  # the hub's naming, e.g. train-00000-of-00645.parquet
BUFFER_BYTES = 1 << 20


@contextmanager
def open_parquet(file: Path) -> Iterator[pq.ParquetFile]:
    """The open file, to be read page by page; a page is at most as large as a row group."""
    try:
        with pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} is not a readable parquet file ({reason}); download it again") from error


def write_parquet(file: Path, table: pa.Table) -> str:
    """Write `table`, whole or not at all, and return the SHA-256 of the file, in hex."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content = sink.getvalue().to_pybytes()
    write_atomically(file, content)
    return hashlib.sha256(content).hexdigest()


def files_below(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` that match `pattern`, sorted, without hidden ones such as macOS's ._a.png."""
    files = (path for path in folder.rglob(pattern) if path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def choose_files(source: Path, split: str | None) -> list[Path]:
    """The parquet files of `source`, a file or a folder of them; with `split`, those of that split.

    Raises:
        DataError: there is none, or there are several splits and `split` names none of them.
    """
    if source.is_file():
        return [source]
    files = files_below(source, "*.parquet") if source.is_dir() else []
    if not files:
        raise DataError(f"{source} holds no .parquet file; correct the path or choose another format")
    splits = {file: match["split"] for file in files if (match := SHARD_NAME.fullmatch(file.name))}
    names = sorted(set(splits.values()))
    if split is None and len(names) > 1:
        raise DataError(f"{source} holds the splits {', '.join(names)}; choose one with split")
    if split is not None and split not in names:
        raise DataError(f"{source} has no split '{split}'; its splits: {', '.join(names) or 'none'}")
    return [file for file in files if split is None or splits.get(file) == split]
