"""Files of prompts, read by `smpo sample`, which writes the prompts that it has understood into its pair file."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.fuzz.case import Case, Either, Expectation, Made, Refused
from tests.fuzz.running import Result
from tests.fuzz.world import World

TWO = ("a red cat", "a blue dog")


class Prompts:
    """Expects just these prompts."""

    def __init__(self, *prompts: str) -> None:
        self.prompts = list(prompts)

    def complaints(self, results: Sequence[Result], made: Made) -> list[str]:
        """See `Expectation`."""
        if results[-1].code:
            return [f"refused, and must be read as {self.prompts}: {results[-1].error}"]
        lines = (made.cwd / "out/sample/pairs.jsonl").read_text().splitlines()
        found = [json.loads(line)["prompt"] for line in lines]
        return [] if found == self.prompts else [f"read as {found}, and must be read as {self.prompts}"]


def prompts_case(
    name: str, file: str, write: Callable[[Path], object], expect: Expectation, options: Sequence[str] = ()
) -> Case:
    """Draw a pair for each prompt of a file."""

    def make(cwd: Path, world: World) -> list[list[str]]:
        world.write_recipe(cwd)
        recipe = yaml.safe_load((cwd / "recipe.yaml").read_text())
        recipe["data"] = {}
        recipe["sampling"] = {"prompts": file, "num_inference_steps": 1, "guidance_scale": 1.0}
        (cwd / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        write(cwd / file if "\0" not in file and len(file) < 200 else cwd / "unused")
        return [["sample", "recipe.yaml", "paths.workdir=out", *options]]

    return Case(f"prompts {file[:20]}: {name}", make, expect)


def _text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def fixed() -> list[Case]:
    """All of them."""
    two, first, second = Prompts(*TWO), *TWO
    jsonl, array = "\n".join(json.dumps({"prompt": one}) for one in TWO), json.dumps([{"prompt": one} for one in TWO])
    texts: list[tuple[str, str, str | bytes, Expectation]] = [
        ("as it is", "p.txt", "\n".join(TWO), two),
        ("newline at the end", "p.txt", "\n".join(TWO) + "\n", two),
        ("blank last lines", "p.txt", "\n".join(TWO) + "\n\n\n", two),
        ("CRLF", "p.txt", "\r\n".join(TWO) + "\r\n", two),
        ("UTF-8 mark", "p.txt", "\ufeff" + "\n".join(TWO), two),
        ("UTF-16", "p.txt", "\n".join(TWO).encode("utf-16"), Either((two, Refused(("p.txt",))))),
        ("Latin-1", "p.txt", "caf\u00e9".encode("latin-1"), Refused(("p.txt",))),
        ("empty", "p.txt", "", Refused(("p.txt",))),
        ("blank", "p.txt", " \n\n", Refused(("p.txt",))),
        ("blank line between", "p.txt", f"{first}\n\n{second}\n", Either((two, Refused(("p.txt:2",))))),
        ("spaces around", "p.txt", f"  {first} \n\t{second}\t\n", two),
        ("binary", "p.txt", bytes(range(256)), Refused(("p.txt",))),
        ("line separators in a prompt", "p.txt", "a\u2028b\nc\x0bd\n", Prompts("a\u2028b", "c\x0bd")),
        ("quotes stay in text", "p.txt", f'"{first}"\n{second}\n', Prompts(f'"{first}"', second)),
        ("as it is", "p.jsonl", jsonl, two),
        ("blank last line", "p.jsonl", jsonl + "\n\n", two),
        ("texts", "p.jsonl", "\n".join(map(json.dumps, TWO)), two),
        ("UTF-8 mark", "p.jsonl", "\ufeff" + jsonl, two),
        ("a broken line", "p.jsonl", jsonl + "\n{", Refused(("p.jsonl:3",))),
        ("null", "p.jsonl", jsonl + "\nnull", Refused(("p.jsonl:3",))),
        ("a number", "p.jsonl", jsonl + "\n5", Refused(("p.jsonl:3",))),
        ("a list", "p.jsonl", jsonl + '\n["a"]', Refused(("p.jsonl:3",))),
        ("prompt null", "p.jsonl", jsonl + '\n{"prompt": null}', Refused(("p.jsonl:3",))),
        ("prompt a list", "p.jsonl", jsonl + '\n{"prompt": ["a"]}', Refused(("p.jsonl:3",))),
        ("another key", "p.jsonl", jsonl + '\n{"txt": "a"}', Refused(("p.jsonl:3",))),
        ("surrogate", "p.jsonl", jsonl + '\n{"prompt": "\\ud800"}', Refused(("p.jsonl:3",))),
        ("deep", "p.jsonl", jsonl + "\n" + "[" * 9000, Refused(("p.jsonl:3",))),
        ("5000 digits", "p.jsonl", jsonl + "\n" + "9" * 5000, Refused(("p.jsonl:3",))),
        ("array", "p.json", array, two),
        ("array of texts", "p.json", json.dumps(TWO), two),
        ("an object", "p.json", '{"a": 1}', Refused(("p.json",))),
        ("cut", "p.json", array[:-3], Refused(("p.json",))),
        ("empty array", "p.json", "[]", Refused(("p.json",))),
        ("deep", "p.json", "[" * 9000, Refused(("p.json",))),
        ("null", "p.json", "null", Refused(("p.json",))),
        ("UTF-8 mark", "p.json", "\ufeff" + array, two),
        ("numbers", "p.json", "[1]", Refused(("p.json",))),
        ("as it is", "p.csv", f"prompt\n{first}\n{second}\n", two),
        ("quoted", "p.csv", f'prompt,n\n"{first}",1\n"{second}",2\n', two),
        ("no header", "p.csv", f"{first}\n{second}\n", Refused(("p.csv",))),
        ("empty", "p.csv", "", Refused(("p.csv",))),
        ("header alone", "p.csv", "prompt\n", Refused(("p.csv",))),
        ("open quote", "p.csv", f'prompt\n"{first}\n', Refused(("p.csv",))),
        ("comma in a prompt", "p.csv", "prompt,n\na, b,1\n", Refused(("p.csv:2",))),
        ("newline in a cell", "p.csv", 'prompt,n\n"a\nb",1\n', Prompts("a\nb")),
        ("blank last line", "p.csv", f"prompt\n{first}\n{second}\n\n", two),
        ("UTF-8 mark", "p.csv", f"\ufeffprompt\n{first}\n{second}\n", two),
        ("an empty cell", "p.csv", f"prompt,n\n{first},1\n,2\n", Refused(("p.csv:3",))),
        ("NUL", "p.csv", "prompt\na\0b\n", Either((Refused(("p.csv",)), Prompts("a\0b")))),
        ("as it is", "p.tsv", f"prompt\tn\n{first}\t1\n{second}\t2\n", two),
        (
            "bare quotes, as PartiPrompts",
            "p.tsv",
            'Prompt\tCategory\na 12" ruler\tx\nthe "b\ty\n',
            Prompts('a 12" ruler', 'the "b'),
        ),
        ("quoted by pandas", "p.tsv", f'prompt\tn\n"say ""hi"""\t1\n{second}\t2\n', Prompts('say "hi"', second)),
        ("newline in a quoted cell", "p.tsv", 'prompt\tn\n"a\nb"\t1\n', Prompts("a\nb")),
        ("no header", "p.tsv", f"{first}\t1\n", Refused(("p.tsv",))),
        ("an unknown suffix", "p.docx", "x", Refused(("docx",))),
        ("no suffix", "p", "x", Refused(("p",))),
    ]
    found = [prompts_case(name, file, _text(content), expect) for name, file, content, expect in texts]
    return [*found, *_others(two)]


def _others(two: Prompts) -> Iterator[Case]:
    for file in ("nowhere.txt", "", "x" * 250 + ".txt", "a\nb.txt", "/dev/null"):
        yield prompts_case(
            "is not there",
            file,
            lambda path: None,
            Refused(((repr(file)[1:40] or "prompts", file[:40] or "prompts", "prompts"),)),
        )
    yield prompts_case("a folder of none", "d", lambda path: path.mkdir(), Refused(("d",)))
    yield prompts_case("a folder called p.txt", "p.txt", lambda path: path.mkdir(), Refused(("p.txt",)))
    yield prompts_case("a table", "p.parquet", lambda path: pq.write_table(pa.table({"prompt": TWO}), path), two)
    yield prompts_case("captions", "p.parquet", lambda path: pq.write_table(pa.table({"caption": TWO}), path), two)
    yield prompts_case(
        "numbers", "p.parquet", lambda path: pq.write_table(pa.table({"prompt": [1, 2]}), path), Refused(("p.parquet",))
    )
    yield prompts_case(
        "nulls",
        "p.parquet",
        lambda path: pq.write_table(pa.table({"prompt": [TWO[0], None]}), path),
        Refused(("p.parquet:2",)),
    )
    yield prompts_case(
        "no column", "p.parquet", lambda path: pq.write_table(pa.table({"x": TWO}), path), Refused(("p.parquet",))
    )
    yield prompts_case(
        "no rows",
        "p.parquet",
        lambda path: pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path),
        Refused(("p.parquet",)),
    )
    yield prompts_case("cut", "p.parquet", _text(b"PAR1xx"), Refused(("p.parquet",)))
    ten = "\n".join(f"thing {n % 4}" for n in range(10))
    yield prompts_case("limit", "p.txt", _text(ten), Prompts("thing 0", "thing 1"), ["sampling.limit=2"])
    yield prompts_case(
        "unique", "p.txt", _text(ten), Prompts(*(f"thing {n}" for n in range(4))), ["sampling.unique=true"]
    )
    yield prompts_case(
        "per category without any", "p.txt", _text(ten), Refused(("per_category",)), ["sampling.per_category=2"]
    )
    yield prompts_case(
        "a split", "p.txt", _text(ten), Either((Refused(("split",)), Prompts(*ten.split("\n")))), ["sampling.split=x"]
    )


def at_random(rng: random.Random) -> Case:
    """Lines with odd characters come back as they are."""
    pool = "ab c\u00e9\u4e2d\U0001f600\"',;#:{}[]<>%$\\/|*?\u202e\u00a0"
    lines = ["".join(rng.choice(pool) for _ in range(rng.randint(1, 12))).strip() or "x" for _ in range(3)]
    if rng.random() < 0.5:
        return prompts_case(repr(lines)[:60], "p.txt", _text("\n".join(lines)), Prompts(*lines))
    return prompts_case(repr(lines)[:60], "p.jsonl", _text("\n".join(map(json.dumps, lines))), Prompts(*lines))
