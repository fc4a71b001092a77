"""Texts in PNG files: removed before decoding, because a workflow may be megabytes long, and searched for a prompt.

AUTOMATIC1111 and Forge write the text `parameters`: the prompt, then lines "Negative prompt: ..." and "Steps: ...".
ComfyUI writes the text `prompt`: its graph as JSON, {node id: {"class_type": ..., "inputs": {name: value, or [node id,
output]}}}.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

PNG_MARK = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
NEEDED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")  # texts that may hold the image's orientation
MAX_TEXT_BYTES = 16 << 20  # of one text after decompression; larger texts are not searched
END_OF_PROMPT = re.compile(r"^(Negative prompt:|Steps: \d)", re.MULTILINE)
MAX_NODES = 50  # between a sampler and its text


def without_text(data: bytes) -> bytes:
    """A PNG without the texts that say nothing about its pixels; the bytes of another file unchanged.

    Pillow refuses a PNG with a compressed text above 1 MB, or with texts above 64 MB together.
    """
    drop = [(start, stop) for kind, start, stop in _chunks(data)
            if kind in TEXT_CHUNKS and not data.startswith(NEEDED, start + 8)]
    if not drop:
        return data
    starts, stops = [0, *(stop for _, stop in drop)], [*(start for start, _ in drop), len(data)]
    view = memoryview(data)
    return b"".join(view[start:stop] for start, stop in zip(starts, stops, strict=True))


def prompt_in(data: bytes) -> str | None:
    """The prompt that AUTOMATIC1111 or ComfyUI wrote into the PNG `data`; None if there is none, or several."""
    texts = _texts(data)
    if "parameters" in texts:
        prompt = END_OF_PROMPT.split(texts["parameters"], maxsplit=1)[0].strip()
        return prompt or None
    if "prompt" not in texts:
        return None
    try:
        graph = json.loads(texts["prompt"])
    except (ValueError, RecursionError):
        return None
    return _prompt_of_graph(graph) if isinstance(graph, dict) else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, stop) of each whole chunk of a PNG; nothing for another file."""
    position = len(PNG_MARK)
    while data.startswith(PNG_MARK) and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            return
        yield kind, position, stop
        position = stop


def _texts(data: bytes) -> dict[str, str]:
    """Keyword -> text of a PNG, without the texts that cannot be decoded."""
    texts = {}
    for kind, start, stop in _chunks(data):
        if kind not in TEXT_CHUNKS:
            continue
        keyword, _, rest = data[start + 8:stop - 4].partition(b"\0")
        try:
            texts[keyword.decode("latin-1")] = _text_of(kind, rest)
        except (ValueError, zlib.error):  # not UTF-8, too long, damaged
            continue
    return texts


def _text_of(kind: bytes, rest: bytes) -> str:
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(rest[1:]).decode("latin-1")
    compressed, rest = rest[:1] == b"\x01", rest[2:]
    text = rest.split(b"\0", 2)[-1]  # after the language and the translated keyword
    return (_inflate(text) if compressed else text).decode("utf-8")


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, MAX_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError("text is too long")
    return text


def _prompt_of_graph(graph: dict[str, Any]) -> str | None:
    """The input `positive` of the samplers of a ComfyUI graph as text; None unless all have the same."""
    links = [inputs["positive"] for inputs in map(_inputs, graph.values()) if "positive" in inputs]
    texts = {text for link in links for text in [_follow(graph, link)] if text}
    return texts.pop() if len(texts) == 1 else None


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _follow(graph: dict[str, Any], value: Any) -> str | None:
    """The text at the end of a chain of links [node id, output]; each node passes on its text or its conditioning."""
    for _ in range(MAX_NODES):
        if isinstance(value, str):
            return value.strip() or None
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)):
            return None
        inputs = _inputs(graph.get(str(value[0])))
        known = [inputs[name] for name in ("text", "text_g", "string", "value", "positive", "conditioning")
                 if name in inputs]
        if not known:
            return None
        value = known[0]
    return None
