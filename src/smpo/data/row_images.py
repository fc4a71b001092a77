"""Encoded bytes of an image from a value in a row: bytes, a path, a data URI, base64, or {bytes, path}."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from smpo.data.values import RowProblem, is_missing, malformed, plain, shown

MAX_PATH_BYTES, MAX_NAME_BYTES = 4096, 255  # Linux's PATH_MAX and NAME_MAX: no file has a longer name
MAX_FILE_BYTES = 1 << 30  # the largest image that is decoded has 0.7 GB: 89 million pixels of 16-bit RGBA
BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk", "SUkq", "TU0A")  # PNG, JPEG, WebP, GIF, BMP, TIFF
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
DATA_URI = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
LABEL_STUDIO = ("/data/local-files/?d=", "/data/")  # before the paths in Label Studio's exports


@dataclass(frozen=True)
class ImageFiles:
    """Reads image files; relative paths start from the folder `root`."""

    root: Path

    def read(self, value: Any, *, name: str) -> bytes:
        """The encoded bytes of the image in `value`, of column `name`; they are not decoded yet.

        Raises:
            RowProblem: missing_image if there is no value or no such file, oversized_image, or malformed_row.
        """
        value = plain(value)
        if isinstance(value, list | tuple) and len(value) == 1:  # TRL puts images into lists
            value = plain(value[0])
        if isinstance(value, Mapping):
            return self._read_struct(value, name)
        if isinstance(value, bytes | bytearray | memoryview):
            if not len(value):
                raise RowProblem("missing_image", f"{name} is empty")
            return bytes(value)
        if is_missing(value):
            raise RowProblem("missing_image", f"{name} is empty")
        if not isinstance(value, str):
            raise malformed(f"{name} is {shown(value)}, expected an image's bytes or path")
        return _decoded(value, name) or self._read_file(value, name)

    def path(self, value: str) -> Path | None:
        """The file that `value` names, which need not exist; None if no file can have that name.

        Backslashes separate folders as slashes do. A path may lead out of `root`: only images are decoded later.
        """
        if "\0" in value or len(value) > MAX_PATH_BYTES or any("\ud800" <= letter <= "\udfff" for letter in value):
            return None
        for start in LABEL_STUDIO:
            if value.startswith(start) and not os.path.lexists(value):
                value = unquote(value.removeprefix(start))
        path = self.root / value
        path = path if os.path.lexists(path) else self.root / value.replace("\\", "/")
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
        return path if longest <= MAX_NAME_BYTES and len(os.fsencode(path)) < MAX_PATH_BYTES else None

    def _read_struct(self, value: Mapping[Any, Any], name: str) -> bytes:
        """The bytes in {"bytes": ..., "path": ...}, the Image feature of datasets, or else those of the file."""
        if not {"bytes", "path"} & set(value):
            raise malformed(f"{name} is {shown(dict(value))}, expected bytes or path in it")
        data = value.get("bytes")
        return self.read(value.get("path") if is_missing(data) or data == b"" else data, name=name)

    def _read_file(self, value: str, name: str) -> bytes:
        if URL.match(value):
            raise RowProblem("missing_image", f"{name} is the URL {shown(value)}; download the image and name its path")
        path = self.path(value)
        if path is None:
            raise malformed(f"{name} is {shown(value)}, which is neither a path nor base64")
        try:
            if not path.is_file():  # reading a device or a pipe might never end
                raise RowProblem("missing_image", f"{name}: {shown(value)} does not exist in {self.root}; set "
                                 "data.image_root to the folder that the paths start from")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise RowProblem("oversized_image", f"{name}: {shown(value)} has more than {MAX_FILE_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise RowProblem("missing_image", f"{name}: {shown(value)} cannot be read ({error.strerror})") from error


def _decoded(value: str, name: str) -> bytes | None:
    """The bytes of a data URI, or of base64 text that begins like an image; None if `value` is neither."""
    if match := DATA_URI.match(value):
        if not match[0].casefold().endswith(";base64,"):
            raise malformed(f"{name} is {shown(value)}, a data URI that is not base64")
        value = value[match.end():]
    elif not (len(value) > 200 and value.startswith(BASE64_STARTS)):
        return None
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed(f"{name} is damaged base64 ({error})") from error
