"""Prompt files of every kind, and where an empty prompt is."""

from pathlib import Path

import pytest

from smpo.errors import ConfigError, DataError
from smpo.generation import read_prompts

PARTI = Path(__file__).parents[3] / "shared/data/PartiPrompts.tsv"


@pytest.mark.parametrize(("name", "text"), [
    ("p.txt", "a cat\n\"two\" dogs, one red\n"),
    ("p.jsonl", '{"prompt": "a cat"}\n{"caption": "\\"two\\" dogs, one red"}\n'),
    ("p.json", '["a cat", "\\"two\\" dogs, one red"]'),
    ("p.csv", 'id,prompt\n1,a cat\n2,"""two"" dogs, one red"\n'),
    ("p.tsv", 'Prompt\tCategory\na cat\tx\n"two" dogs, one red\ty\n'),
    ("bom.txt", "\ufeffa cat\r\n\"two\" dogs, one red"),
])
def test_every_kind_gives_the_same_prompts(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert read_prompts(path) == read_prompts(str(path)) == ["a cat", '"two" dogs, one red']


def test_list_passes_through() -> None:
    assert read_prompts(["a cat", " two dogs "]) == ["a cat", "two dogs"]


@pytest.mark.skipif(not PARTI.exists(), reason="PartiPrompts.tsv is not beside the repository")
def test_parti_prompts_are_complete() -> None:
    """1,632 unique prompts; the file's own count is in the README of google-research/parti."""
    prompts = read_prompts(PARTI)
    assert len(prompts) == len(set(prompts)) == 1632
    assert prompts[0] == "bond"
    assert sum('"' in prompt for prompt in prompts) == 22


@pytest.mark.parametrize(("name", "text", "message"), [
    ("p.txt", "a\n\nb\n", "{path}:2: expected a prompt, got ''; correct or delete the line"),
    ("p.txt", "", "{path}:1: expected a prompt, got ''; correct or delete the line"),
    ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "{path}:2: expected a prompt, got None; correct or delete "
     "the line"),
    ("p.json", '["a", 3]', "{path}:2: expected a prompt, got 3; correct or delete the line"),
    ("p.json", "[]", "{path} holds no prompts; add at least one"),
    ("p.csv", "prompt,x\na,1\n ,2\n", "{path}:3: expected a prompt, got ' '; correct or delete the line"),
    ("p.tsv", "text\na\n", "{path} has no column named prompt, Prompt, caption, got text; rename one"),
    ("p.jsonl", "a cat\n", "{path} is not valid JSONL of prompts (Expecting value: line 1 column 1 (char 0)); "
     "correct it"),
])
def test_refusals_name_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        read_prompts(path)
    assert str(refused.value) == message.format(path=path)


def test_missing_file_and_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; correct the path"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"unknown kind of prompts file '\.tx'; known: \.txt"):
        read_prompts(tmp_path / "p.tx")


def test_empty_list_is_refused() -> None:
    with pytest.raises(DataError, match="prompts holds no prompts; add at least one"):
        read_prompts([])
