"""What is wrong with a recipe's file is one line with file and line, at once."""

import time
from pathlib import Path

import pytest

from smpo.core.errors import ConfigError
from smpo.pipeline.reading import read_recipe
from smpo.pipeline.recipe_files import recipe_path

LEVELS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + LEVELS

FAULTY: list[tuple[str, bytes, str]] = [  # name, content, how the line goes on after the file's name
    ("empty", b"", ": holds no keys"),
    ("comment", b"# nothing\n", ": holds no keys"),
    ("blank", b"\n \n", ": holds no keys"),
    ("list", b"- a\n", ": must be a mapping of keys, got a list"),
    ("text", b"some words", ": must be a mapping of keys, got a text"),
    ("number", b"3", ": must be a mapping of keys, got int"),
    ("twice", b"name: a\nseed: 1\nname: b\n", ":3: 'name' stands here again, first in line 1; keep one"),
    ("twice-below", b"training:\n  steps: 1\n  steps: 2\n", ":3: 'steps' stands here again, first in line 2"),
    ("twice-quoted", b'"name": a\nname: b\n', ":2: 'name' stands here again"),
    ("number-key", b"name: a\n1: x\n", ":2: a key must be text, got '1'; quote it"),
    ("true-key", b"true: x\n", ":1: a key must be text, got 'true'"),
    ("null-key", b"~: x\n", ":1: a key must be text, got '~'"),
    ("empty-key", b"'': x\n", ":1: a key must be text, got ''"),
    ("list-key", b"? [a]\n: b\n", ":1: a key must be text, got a list or mapping"),
    ("bomb", BOMB.encode(), ":6: more than 100,000 values, with the aliases written out"),
    ("loop", b"a: &a [*a]\n", ":1: an alias stands inside the value that it repeats"),
    ("unknown-alias", b"name: a\nseed: *nope\n", ":2: not valid YAML (found undefined alias"),
    ("deep", b"a: " + b"[" * 200_000, ":1: nested deeper than 32 levels"),
    ("deep-blocks", b"".join(b" " * i + b"a:\n" for i in range(40)), ":33: nested deeper than 32 levels"),
    ("two", b"name: a\n---\nname: b\n", ":2: a second document begins here"),
    ("tab", b"training:\n\tsteps: 1\n", ":2: not valid YAML ("),
    ("open", b"name: [a\nseed: 1\n", ":2: not valid YAML ("),
    ("open-quote", b"name: 'a\nseed: 1\n", ":3: not valid YAML ("),
    ("latin-1", "name: a\nnote: \u00e9t\u00e9\n".encode("latin-1"), ":2: byte 0xe9 is not UTF-8; save"),
    ("utf-16", "name: a\n".encode("utf-16"), ": UTF-16 text; save it as UTF-8"),
    ("utf-16-be", b"\xfe\xff\x00n", ": UTF-16 text; save it as UTF-8"),
    ("nul", b"name: a\x00b\n", ": not valid YAML (unacceptable character"),
    ("quoted-nul", b'name: "a\\0b"\n', ": a text that is not UTF-8: 'a\\x00b'"),
    ("escape", b"name: \x1b[31m\n", ": not valid YAML (unacceptable character"),
    ("large-number", b"seed: " + b"9" * 5000, ":1: not a number, or one of too many digits"),
    ("63-bits", b"seed: 9223372036854775808\n", ": a whole number of more than 63 bits"),
    ("python-tag", b"name: !!python/object/apply:os.system [ls]\n", ":1: the tag 'os.system' is not read here"),
    ("own-tag", b"name: !mine a\n", ":1: the tag '!mine' is not read here"),
    ("binary", b"name: !!binary aGk=\n", ":1: the tag 'binary' is not read here"),
    ("set", b"name: !!set {a, b}\n", ":1: the tag 'set' is not read here"),
    ("bad-merge", b"training: {<<: 3}\n", ":1: expected a mapping or list of mappings for merging"),
    ("not-an-int", b"seed: !!int x\n", ":1: not a number"),
    ("large", b"#" * ((1 << 20) + 1), ": larger than 1 MiB, so no recipe"),
    ("picture", b"\x89PNG\r\n\x1a\n\x00\x00", ":1: byte 0x89 is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "line"), FAULTY, ids=[case[0] for case in FAULTY])
def test_a_faulty_file_is_one_line_at_once(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    path, started = tmp_path / f"{name}.yaml", time.perf_counter()
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_recipe(str(path))
    assert str(caught.value).startswith(f"{path}{line}") and "\n" not in str(caught.value)
    assert time.perf_counter() - started < 10  # a tenth of a second, where nothing else runs


@pytest.mark.parametrize(("content", "key", "value"), [
    (b"\xef\xbb\xbfname: a\n", "name", "a"),
    (b"name: a\r\nseed: 1\r\n", "seed", 1),
    (b"flag: no\n", "flag", "no"),
    (b"on: 1\n", "on", 1),
    (b"when: 2024-01-01\n", "when", "2024-01-01"),
    (b"lr: 1e-5 # comment\n", "lr", 1e-5),
    (b"x: &x {a: 1}\ny: {<<: *x, b: 2}\n", "y", {"a": 1, "b": 2}),
    (b"%YAML 1.1\n---\nname: a\n...\n", "name", "a"),
    (b"name: !!str 3\n", "name", "3"),
])
def test_a_sound_file_is_read_as_it_looks(tmp_path: Path, content: bytes, key: str, value: object) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert read_recipe(str(tmp_path / "mine.yaml"))[key] == value


def test_a_name_means_the_shipped_recipe_and_a_path_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shipped = recipe_path("sd15-dpo")
    for name in ("sd15-dpo", "own.yaml"):
        (tmp_path / name).write_text("name: mine\n")
    (tmp_path / "folder").mkdir()
    assert recipe_path("own.yaml") == Path("own.yaml") and recipe_path("~/own.yaml") == tmp_path / "own.yaml"
    assert recipe_path("./sd15-dpo") == Path("sd15-dpo") and shipped.name == "sd15-dpo.yaml"
    for source, line in (
        ("sd15-dpo", "'sd15-dpo' is a shipped recipe and a file here; write ./sd15-dpo for the file"),
        ("folder", "folder: a recipe is a YAML file, got a folder"),
        ("own", "Did you mean 'own.yaml'?"),
        ("sd15-smpoo", "Did you mean 'sd15-smpo'?"),
        ("sd15-smpo.yaml", "Did you mean 'sd15-smpo'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            recipe_path(source)
        assert line in str(caught.value)
