"""Prompts that the programs people draw with write into their PNG files."""

import json
from pathlib import Path

import pytest
from PIL import PngImagePlugin

from smpo.data.image_text import prompt_in
from smpo.preparation.options import PairOptions
from smpo.preparation.pairs import describe, prepare_pairs
from tests.data.pictures import encoded, picture

A1111 = "a cat, (red:1.2)\non a sofa\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7"
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "dog", "clip": ["4", 1]}},
}


def changed(**nodes: dict) -> dict:
    return {**GRAPH, **{name.lstrip("n"): node for name, node in nodes.items()}}


def drawn(seed: int, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text, zip=seed % 2 == 1)
    return encoded(picture(seed), pnginfo=info)


@pytest.mark.parametrize(("text", "expected"), [
    (A1111, "a cat, (red:1.2)\non a sofa"), ("a cat\nSteps: 20", "a cat"), ("a cat", "a cat"),
    ("K\u00e4se \u732b\nSteps: 3", "K\u00e4se \u732b"), ("Negative prompt: dog", None), ("", None)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a1111(text: str, expected: str | None, seed: int):
    assert prompt_in(drawn(seed, parameters=text)) == expected


@pytest.mark.parametrize(("graph", "expected"), [
    (GRAPH, "a cat"),
    (changed(n6={"inputs": {"text": ["9", 0]}}, n9={"inputs": {"string": "through a link"}}), "through a link"),
    (changed(n6={"inputs": {"text_g": "sdxl", "text_l": "sdxl"}}), "sdxl"),
    (changed(n6={"inputs": {"conditioning": ["8", 0]}}, n8={"inputs": {"text": "through a node"}}), "through a node"),
    (changed(n8={"class_type": "KSampler", "inputs": {"positive": ["7", 0]}}), None),   # two samplers, two prompts
    (changed(n6={"inputs": {"text": ["6", 0]}}), None),                                 # a circle
    (changed(n6={"inputs": {"text": 3}}), None), (changed(n6={"inputs": []}), None), (changed(n6=3), None),  # type: ignore
    ([1], None), ({}, None), ({"3": None}, None)])
def test_comfyui(graph: object, expected: str | None):
    assert prompt_in(drawn(0, prompt=json.dumps(graph), workflow="{}")) == expected


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", drawn(0), drawn(0, prompt="{"),
                                  drawn(0, prompt="[" * 100_000), drawn(1, parameters="x" * 100)[:60]])
def test_no_prompt(data: bytes):
    assert prompt_in(data) is None


def test_folders_without_captions_read_them_and_say_so(tmp_path: Path):
    for name, texts in (("cat_w", A1111), ("cat_l", A1111), ("dog_w", "a dog"), ("dog_l", "another"), ("owl_w", "")):
        (tmp_path / f"{name}.png").write_bytes(drawn(len(name) + ord(name[0]) + ord(name[-1]), parameters=texts))
    (tmp_path / "owl_l.png").write_bytes(drawn(5))
    report = prepare_pairs(str(tmp_path), tmp_path / "out", options=PairOptions(max_dropped_fraction=1))
    assert (report.kept, report.captions_from_images) == (1, 1)
    assert report.dropped == {"malformed_row": 1, "empty_caption": 1}
    assert "read as names that end in _w and _l; prompts beside the images; rows: 2 labelled; " \
           "1 prompts are from the images' metadata" in describe(report)
