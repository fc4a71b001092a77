"""Artefacts: states, refusal of stale folders, survival of crashes."""

import json
import os
from pathlib import Path

import pytest

from smpo.core import artefacts
from smpo.core.artefacts import (
    Status,
    begin,
    fingerprint,
    fingerprint_of,
    finish,
    hash_file,
    read_manifest,
    write_atomically,
)
from smpo.core.errors import DataError, StaleError

WORK = {"stage": "label", "settings": {"gamma": 10.0, "scale": {"low": 0.1}}, "inputs": {"pairs": "a" * 64}}


def error_of(kind: type[Exception], call: object, *given: object, **named: object) -> str:
    with pytest.raises(kind) as error:
        call(*given, **named)
    return str(error.value)


def test_states_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    assert begin(folder, **WORK) is Status.FRESH
    assert begin(folder, **WORK) is Status.PARTIAL
    finish(folder, {"pairs": 5})
    assert begin(folder, **WORK) is Status.DONE
    assert read_manifest(folder, stage="label")["results"] == {"pairs": 5}


def test_finishing_deletes_what_killed_writes_left(tmp_path: Path) -> None:
    begin(tmp_path, **WORK)
    (tmp_path / "table.parquet.tmp-7").write_bytes(b"half")
    finish(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_an_empty_folder_is_fresh(tmp_path: Path) -> None:
    assert begin(tmp_path, **WORK) is Status.FRESH


@pytest.mark.parametrize(("changes", "differing"), [
    ({"settings": {"gamma": 5.0, "scale": {"low": 0.1}}}, "gamma=10.0 (now 5.0)"),
    ({"settings": {"gamma": 10.0, "scale": {"low": 0.2}}}, "scale.low=0.1 (now 0.2)"),
    ({"settings": {"gamma": 10.0, "scale": {"low": 0.1}, "new": "x"}}, "new=absent (now 'x')"),
    ({"settings": {"scale": {"low": 0.1}}}, "gamma=10.0 (now absent)"),
    ({"inputs": {"pairs": "b" * 64}}, f"input.pairs='{'a' * 12}' (now '{'b' * 12}')"),
    ({"stage": "score"}, "stage='label' (now 'score')"),
    ({"settings": {"gamma": 10, "scale": {"low": 0.1}}}, "gamma=10.0 (now 10)"),
    ({"settings": {"gamma": 10.0, "scale": {"low": 0.1}, "new": None}}, "new=absent (now None)"),
    ({"settings": {}}, "gamma=10.0 (now absent), scale.low=0.1 (now absent)"),
    ({"settings": {"gamma": 1.0, "scale": {"low": 0.2}}}, "gamma=10.0 (now 1.0), scale.low=0.1 (now 0.2)"),
])
@pytest.mark.parametrize("complete", [False, True])
def test_other_settings_or_inputs_are_stale_and_named(
    tmp_path: Path, changes: dict, differing: str, complete: bool
) -> None:
    begin(tmp_path, **WORK)
    if complete:
        finish(tmp_path, {})
    assert error_of(StaleError, begin, tmp_path, **{**WORK, **changes}) == (
        f"{tmp_path} was made with {differing}; delete the folder or choose another path")


def test_only_three_differences_are_spelled_out(tmp_path: Path) -> None:
    begin(tmp_path, stage="s", settings=dict.fromkeys("abcde", 1), inputs={})
    message = error_of(StaleError, begin, tmp_path, stage="s", settings=dict.fromkeys("abcde", 2), inputs={})
    assert message == (f"{tmp_path} was made with a=1 (now 2), b=1 (now 2), c=1 (now 2) and 2 more differences; "
                       "delete the folder or choose another path")


def test_order_of_settings_and_tuples_do_not_make_a_folder_stale(tmp_path: Path) -> None:
    begin(tmp_path, stage="s", settings={"a": (1, 2), "b": Path("x")}, inputs={})
    assert begin(tmp_path, stage="s", settings={"b": Path("x"), "a": [1, 2]}, inputs={}) is Status.PARTIAL


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert error_of(StaleError, begin, tmp_path, **WORK) == (
        f"{tmp_path} holds files but no manifest.json; delete the folder or choose another path")


@pytest.mark.parametrize("call", [
    lambda folder: begin(folder, **WORK), lambda folder: read_manifest(folder, stage="label"),
    lambda folder: finish(folder, {}),
])
def test_a_corrupted_manifest_is_one_line(tmp_path: Path, call: object) -> None:
    begin(tmp_path, **WORK)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text()[:20])
    message = error_of(DataError, call, tmp_path)
    assert message.startswith(f"{path} is not valid JSON (") and "\n" not in message
    assert message.endswith("); delete the folder and run the stage again")


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"stage": "label"}'])
def test_a_foreign_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    for call in (lambda: begin(tmp_path, **WORK), lambda: read_manifest(tmp_path, stage="label")):
        assert error_of(DataError, call) == (
            f"{tmp_path / 'manifest.json'} is no manifest of this toolkit; delete the folder or choose another path")


def test_a_manifest_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{")
    assert "is not valid JSON ('utf-8' codec can't decode" in error_of(DataError, begin, tmp_path, **WORK)


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert error_of(DataError, read_manifest, folder, stage="label") == (
        f"{folder} holds no label artefact; run `smpo label` first, or correct the path")
    begin(folder, **WORK)
    assert error_of(DataError, read_manifest, folder, stage="score") == (
        f"{folder} is an artefact of `smpo label`, expected `smpo score`; correct the path")
    assert error_of(DataError, read_manifest, folder, stage="label") == (
        f"{folder} is unfinished; run `smpo label` again to complete it")


def test_fingerprints_do_not_depend_on_order_but_on_content() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert len({fingerprint(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1])}) == 5


def test_fingerprint_of_an_artefact_includes_its_results(tmp_path: Path) -> None:
    """A later stage is stale when the same settings gave another result."""
    prints = []
    for name, results in (("a", {"n": 1}), ("b", {"n": 1}), ("c", {"n": 2})):
        begin(tmp_path / name, **WORK)
        finish(tmp_path / name, results)
        prints.append(fingerprint_of(tmp_path / name, stage="label"))
    assert prints[0] == prints[1] != prints[2]


def test_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    """The published SHA-256 of "abc" (FIPS 180-2)."""
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_while_writing_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old")

    def crash(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts.os, moment, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new and longer")
    monkeypatch.undo()
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new" and os.listdir(path.parent) == ["file.txt"]


def test_a_crash_in_the_first_manifest_leaves_the_folder_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "x", **WORK)
    monkeypatch.undo()
    assert begin(tmp_path / "x", **WORK) is Status.FRESH


def test_manifest_holds_everything_a_reader_needs(tmp_path: Path) -> None:
    begin(tmp_path, **WORK)
    finish(tmp_path, {"pairs": 5})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {**WORK, "complete": True, "results": {"pairs": 5}}.items() <= manifest.items()
