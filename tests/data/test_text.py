"""Text as people save it: marks, line ends, spreadsheets' quotes; what is no UTF-8 is refused, never guessed."""

from pathlib import Path

import pytest

from smpo.core.errors import DataError
from smpo.data.formats import open_source
from smpo.data.text import read_cells, read_text
from smpo.prompts import read_prompts
from tests.data.pictures import png, write_folders, write_jsonl

UMLAUT = "K\u00e4se"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32"])
def test_marks(tmp_path: Path, encoding: str):
    data = UMLAUT.encode(encoding) if encoding != "utf-16-be-mark" else b"\xfe\xff" + UMLAUT.encode("utf-16-be")
    (tmp_path / "t.txt").write_bytes(data)
    assert read_text(tmp_path / "t.txt") == UMLAUT
    assert [prompt.text for prompt in read_prompts(tmp_path / "t.txt")] == [UMLAUT]


def test_what_is_no_utf_8_is_refused_with_the_place_and_a_way_out(tmp_path: Path):
    (tmp_path / "t.txt").write_bytes(b"one\n" + UMLAUT.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_text(tmp_path / "t.txt")
    assert str(caught.value) == (f"{tmp_path / 't.txt'} is not UTF-8 text (invalid continuation byte at byte 5, "
                                 "line 2); save it as UTF-8, e.g. iconv -f latin1 -t utf-8")
    (tmp_path / "u.txt").write_bytes(UMLAUT.encode("utf-16-le"))
    with pytest.raises(DataError, match="starts with NUL bytes: UTF-16 without a mark, or no text; save it as UTF-8"):
        read_text(tmp_path / "u.txt")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); correct the path"):
        read_text(tmp_path)


@pytest.mark.parametrize("text", ["a\n\nb\n\n", "a\r\nb\r\n", "a\rb", "\ufeffa\n b \n", "a\n\t\nb"])
def test_blank_lines_and_line_ends_of_prompts(tmp_path: Path, text: str):
    (tmp_path / "t.txt").write_text(text, encoding="utf-8", newline="")
    assert [prompt.text for prompt in read_prompts(tmp_path / "t.txt")] == ["a", "b"]


SHEETS = {
    "pandas": ('prompt\tn\n"one\ntwo"\t1\n"say ""hi"""\t2\n"a\tb"\t3\nplain\t4\n',
               ["one\ntwo", 'say "hi"', "a\tb", "plain"]),
    "all quoted": ('"prompt"\t"n"\r\n"a cat"\t"1"\r\n', ["a cat"]),
    "bare quotes": ('prompt\tn\n"go" sign\t1\n"Hello World"\t2\nthe "x" one\t3\n',
                    ['"go" sign', '"Hello World"', 'the "x" one']),
    "only whole quotes": ('prompt\tn\n"Hello World"\t1\n', ['"Hello World"']),
    "a bare quote at the end": ('prompt\tn\n"\t1\nb\t2\n', ['"', "b"]),
}


@pytest.mark.parametrize("name", SHEETS)
def test_quotes_of_a_tsv(tmp_path: Path, name: str):
    text, expected = SHEETS[name]
    (tmp_path / "t.tsv").write_text(text, encoding="utf-8", newline="")
    assert [prompt.text for prompt in read_prompts(tmp_path / "t.tsv")] == expected


def test_a_spreadsheets_csv(tmp_path: Path):
    """A mark, semicolons, CRLF, a blank last line, and a cell longer than csv's limit of 131,072 characters."""
    long = "x" * 200_000
    (tmp_path / "t.csv").write_text(f"\ufeffprompt;n\r\n\"a; b\";1\r\n{long};2\r\n\r\n", encoding="utf-8", newline="")
    assert [row for _, row, _ in read_cells(tmp_path / "t.csv")] == [{"prompt": "a; b", "n": "1"},
                                                                  {"prompt": long, "n": "2"}]
    (tmp_path / "u.csv").write_text("prompt,prompt\na,b\n")
    with pytest.raises(DataError, match="u.csv has the column 'prompt' twice; rename one"):
        read_prompts(tmp_path / "u.csv")


def test_captions_beside_images(tmp_path: Path):
    """Whatever their mark; one that is no UTF-8 costs its own pair alone."""
    root = write_folders(tmp_path / "f", ["a", "b", "c", "d"])
    (root / "win" / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n")
    (root / "win" / "b.txt").write_bytes(UMLAUT.encode("utf-16"))
    (root / "win" / "c.txt").write_bytes(UMLAUT.encode("latin-1"))
    (root / "win" / "d.txt").rename(root / "d.caption")
    pairs = list(open_source(str(root), format="folders").read(range(4)))
    assert [pair.caption for pair in pairs] == ["one", UMLAUT, "", "prompt of d"]
    assert pairs[2].problem is not None and pairs[2].problem[0] == "malformed_row"
    assert "invalid continuation byte at byte 1, line 1" in pairs[2].problem[1]


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv", "prompts.jsonl"])
def test_prompt_tables_beside_images_have_marks_too(tmp_path: Path, table: str):
    root = write_folders(tmp_path / "f", ["a"])
    (root / "win" / "a.txt").unlink()
    cells, lines = "file_name,text\r\na.png,x\r\n", '{"file_name": "win\\\\a.png", "caption": "x"}\n\n'
    text = lines if table.endswith("l") else cells
    (root / table).write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert next(iter(open_source(str(root), format="folders").read(range(1)))).caption == "x"


def test_json_lines_of_a_windows_editor(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    file = write_jsonl(tmp_path / "t.jsonl", [{"prompt": UMLAUT, "chosen": "a.png", "rejected": "b.png"}])
    file.write_bytes(file.read_text().replace("\n", "\r\n").encode("utf-16"))
    assert next(iter(open_source(str(file), format="jsonl").read(range(1)))).caption == UMLAUT


def test_hidden_and_upper_case_files_of_prompts(tmp_path: Path):
    (tmp_path / "A.TXT").write_text("one\n")
    (tmp_path / "._A.TXT").write_bytes(b"\x00\x05\x16\x07")
    assert [prompt.text for prompt in read_prompts(tmp_path)] == ["one"]


def test_half_a_surrogate_in_a_prompts_file(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"prompt": "a\\ud800"}\n')
    with pytest.raises(DataError, match=r"t.jsonl:1: the prompt is no UTF-8 text .*; correct or delete the line"):
        read_prompts(tmp_path / "t.jsonl")
