"""Prompt files of every kind, their categories, and where an empty prompt is."""

import json
import sys
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smpo.core.errors import ConfigError, DataError
from smpo.prompts import Prompt, read_prompts

SHARED = Path(__file__).parents[3] / "shared/data"
TEXTS = ["a cat", '"two" dogs, one red']
PARTI = 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tconcepts, biology\n"go" sign\tSigns\tWriting\t\n'


def texts(prompts: list[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(("name", "text"), [
    ("p.txt", "a cat\n\"two\" dogs, one red\n"),
    ("p.jsonl", '{"prompt": "a cat"}\n{"caption": "\\"two\\" dogs, one red"}\n'),
    ("p.json", '["a cat", "\\"two\\" dogs, one red"]'),
    ("p.csv", 'id,prompt\n1,a cat\n2,"""two"" dogs, one red"\n'),
    ("p.tsv", 'Prompt\tNote\na cat\tx\n"two" dogs, one red\ty\n'),
    ("bom.txt", "\ufeffa cat\r\n\"two\" dogs, one red"),
])
def test_every_kind_gives_the_same_prompts(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    assert read_prompts(path) == read_prompts(str(path)) == [Prompt(text) for text in TEXTS]


def test_parquet_reads_only_what_it_needs(tmp_path: Path) -> None:
    table = pa.table({"caption": TEXTS, "jpg_0": [b"\xff"] * 2, "style": ["photo", None]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet") == [Prompt("a cat", "photo"), Prompt(TEXTS[1])]


def test_a_list_passes_through() -> None:
    given = ["a cat", " two dogs ", Prompt("three", "numbers", "counting")]
    assert read_prompts(given) == [Prompt("a cat"), Prompt("two dogs"), given[2]]


def test_parti_prompts_keep_bare_quotes_category_and_challenge(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path / "parti.tsv", PARTI)) == [
        Prompt("bond", "Abstract", "Basic"), Prompt('"go" sign', "Signs", "Writing"),
    ]


def test_geneval_tags_are_categories(tmp_path: Path) -> None:
    row = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "a photo of two dogs"}
    assert read_prompts(write(tmp_path / "geneval.jsonl", json.dumps(row))) == [
        Prompt("a photo of two dogs", "counting")
    ]


def hpdv2(folder: Path) -> Path:
    """A folder like HPDv2's benchmark/: four lists of two prompts, and DrawBench beside them."""
    for style in ("photo", "anime", "paintings", "concept-art"):
        write(folder / f"{style}.json", json.dumps([f"{style} one", f"{style} two"]))
    write(folder / "drawbench.json", '["not part of it"]')
    return folder


def test_hpdv2_folder_gives_its_four_styles_as_categories(tmp_path: Path) -> None:
    prompts = read_prompts(hpdv2(tmp_path))
    assert [prompt.category for prompt in prompts] == [
        "anime", "anime", "concept-art", "concept-art", "paintings", "paintings", "photo", "photo"
    ]
    assert prompts[2].text == "concept-art one"


def test_a_list_of_files_and_a_folder_take_the_files_names_where_prompts_name_no_category(tmp_path: Path) -> None:
    photo, parti = hpdv2(tmp_path / "hpd") / "photo.json", write(tmp_path / "parti.tsv", PARTI)
    for files in ([photo, parti], [str(photo), str(parti)]):
        assert [prompt.category for prompt in read_prompts(files)] == ["photo", "photo", "Abstract", "Signs"]
    mixed = tmp_path / "mixed"
    write(mixed / "b.txt", "b\n"), write(mixed / "a.csv", "prompt\na\n"), write(mixed / "readme.md", "no prompts")
    assert read_prompts(mixed) == [Prompt("a", "a"), Prompt("b", "b")]
    assert read_prompts(photo)[0].category is None


def test_shards_of_a_table_are_no_categories(tmp_path: Path) -> None:
    for shard in range(2):
        pq.write_table(pa.table({"prompt": [f"number {shard}"]}), tmp_path / f"train-0000{shard}-of-00002.parquet")
    assert read_prompts(tmp_path) == [Prompt("number 0"), Prompt("number 1")]


def test_hugging_face_dataset(tmp_path: Path) -> None:
    rows = [{"Prompt": text, "Category": "Animals", "Note": ""} for text in TEXTS]
    parts = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:1])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert read_prompts(tmp_path / "saved", split="train") == [Prompt(text, "Animals") for text in TEXTS]
    assert len(read_prompts(tmp_path / "saved", split="test")) == 1
    with pytest.raises(DataError, match="holds the splits train, test; choose one with split"):
        read_prompts(tmp_path / "saved")


def test_hub_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(name: str, split: str | None) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_dict({"caption": TEXTS})

    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert texts(read_prompts("owner/name", split="test")) == TEXTS
    assert asked == [("owner/name", "test")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    for module in ("smpo.data.huggingface", "smpo.prompts.huggingface"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(DataError, match=r"needs the package datasets, not installed; pip install 'smpo\[hf\]'"):
        read_prompts("owner/name")


def test_choices_keep_the_order(tmp_path: Path) -> None:
    folder = hpdv2(tmp_path)
    assert texts(read_prompts(folder, limit=3)) == ["anime one", "anime two", "concept-art one"]
    one_each = ["anime one", "concept-art one", "paintings one", "photo one"]
    assert texts(read_prompts(folder, per_category=1)) == one_each
    assert texts(read_prompts(folder, per_category=1, limit=2)) == one_each[:2]
    assert len(read_prompts(folder, limit=100)) == 8
    assert texts(read_prompts(["b", "a", "b ", "c", "a"], unique=True)) == ["b", "a", "c"]
    assert texts(read_prompts(["b", "a", "b", "c"], unique=True, limit=2)) == ["b", "a"]
    with pytest.raises(DataError, match="per_category needs prompts with a category, and none has one; use limit"):
        read_prompts(["a"], per_category=1)
    with pytest.raises(ConfigError, match="limit must be a finite number > 0, got 0"):
        read_prompts(["a"], limit=0)


@pytest.mark.skipif(not SHARED.exists(), reason="PartiPrompts.tsv is not beside the repository")
def test_parti_prompts_are_complete() -> None:
    """1,632 unique prompts in 12 categories; the file's own count is in the README of google-research/parti."""
    prompts = read_prompts(SHARED / "PartiPrompts.tsv")
    assert len(prompts) == len(set(texts(prompts))) == 1632
    assert prompts[0] == Prompt("bond", "Abstract", "Basic")
    assert sum('"' in prompt.text for prompt in prompts) == 22
    lines = (SHARED / "PartiPrompts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert Counter(prompt.category for prompt in prompts) == Counter(line.split("\t")[1] for line in lines)
    assert len({prompt.category for prompt in prompts}) == 12


@pytest.mark.parametrize(("name", "text", "message"), [
    ("p.txt", "", "{path} holds no prompts; add at least one"),
    ("p.txt", " \n\n", "{path} holds no prompts; add at least one"),
    ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "{path}:2: expected a prompt, got None; correct or delete "
     "the line"),
    ("p.json", '["a", 3]', "{path}:2: expected a prompt, got 3; correct or delete the line"),
    ("p.json", "[]", "{path} holds no prompts; add at least one"),
    ("p.json", '{"prompt": "a"}', "{path} holds dict, expected a JSON list of prompts; correct it"),
    ("p.csv", "prompt,x\na,1\n ,2\n", "{path}:3: expected a prompt, got ' '; correct or delete the line"),
    ("p.csv", "prompt\na cat, and a dog\n", "{path}:2: more cells than columns; quote the prompt"),
    ("p.csv", 'prompt\n"a" cat\n', "{path}:2: ',' expected after '\"'; correct the quotes, or save it as .tsv"),
    ("p.csv", 'prompt\n"a cat\nb\n', "{path}:3: unexpected end of data; correct the quotes, or save it as .tsv"),
    ("p.tsv", "text\na\n", "{path} has no column named prompt, Prompt, Prompts, caption, got text; rename one"),
    ("p.jsonl", "a cat\n", "{path}:1 is not valid JSON (Expecting value: line 1 column 1 (char 0)); correct it"),
    ("p.json", "[", "{path} is not valid JSON (Expecting value: line 1 column 2 (char 1)); correct it"),
])
def test_refusals_name_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(DataError) as refused:
        read_prompts(path)
    assert str(refused.value) == message.format(path=path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; correct the path"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"unknown kind of prompts file '\.tx'; known: \.txt"):
        read_prompts(tmp_path / "p.tx")
    (tmp_path / "latin.txt").write_bytes("ein Käse".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text .invalid continuation byte at byte 5, line 1.; save"):
        read_prompts(tmp_path / "latin.txt")
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        read_prompts(tmp_path / "p.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no prompts file .* and no saved dataset; correct the path"):
        read_prompts(tmp_path / "empty")


def test_empty_list_is_refused() -> None:
    with pytest.raises(DataError, match="prompts holds no prompts; add at least one"):
        read_prompts([])
