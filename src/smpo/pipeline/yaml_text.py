"""A strict reader of the subset of YAML in which recipes are written. Imports no torch.

Values are read as in YAML 1.2: `no`, `on` and 2024-01-01 are texts, 1e-5 is a number. Every error is one line that
names the file and the line. The number of aliases and the depth are bounded, so that reading any file ends soon.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from smpo.core.errors import ConfigError

MAX_BYTES = 1 << 20      # a recipe is some 50 lines
MAX_DEPTH = 32           # a recipe's deepest key has four parts
MAX_VALUES = 100_000     # with every alias written out
MAX_INTEGER = 2**63 - 1  # the largest size or seed of a tensor
CORE_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
UNSET = "an unset shell variable?"


@dataclass(frozen=True)
class _Where:
    """Where a text came from; `lined` where its lines help to find a fault."""

    name: str
    lined: bool = True

    def at(self, mark: yaml.Mark | None) -> str:
        """The name, with the line of `mark`."""
        return self.name if mark is None or not self.lined else f"{self.name}:{mark.line + 1}"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: no sexagesimal numbers, dates, octal 010, or yes/no/on/off for booleans."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # PyYAML's own


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)(_[0-9]+)*|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
              r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_text(path: Path, *, where: str) -> str:
    """The text of a small UTF-8 file; a byte order mark is left out.

    Raises:
        ConfigError: it is too large, in another encoding, or no text at all.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES >> 20} MiB, so no recipe; correct the path")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{where}: UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ConfigError(f"{where}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error


def parse_mapping(text: str, *, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Raises:
        ConfigError: the text is no mapping, no YAML, or contains something that a recipe may not contain. The message
            names `where` and the line.
    """
    source = _Where(where)
    node = _composed(text, source)
    if node is None:
        raise ConfigError(f"{where}: holds no keys; `smpo show sd15-dpo` prints a whole recipe to start from")
    content = _constructed(node, source)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: must be a mapping of keys, got {_kind(content)}")
    return content


def parse_value(text: str, *, where: str) -> Any:
    """The value of an override: a list, mapping or quoted text as YAML writes them, else one plain value or text.

    A plain text is taken as it stands, with ` #`, `: ` and whatever else it holds.

    Raises:
        ConfigError: it is empty, or starts like a list, mapping or quoted text and is none.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"{where}: the value is empty ({UNSET}); give one, or write null for none")
    source = _Where(where, lined=False)
    if text[0] not in "[{\"'":
        loader = _Loader("")
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return _constructed(yaml.ScalarNode(tag, text), source)
    node = _composed(text, source)
    assert node is not None, text  # only an empty text has no node
    rest = text[node.end_mark.index :].strip()
    if rest:
        raise ConfigError(f"{where}: '{rest}' follows the value; quote the whole, or take it out")
    return _constructed(node, source)


def _composed(text: str, where: _Where) -> yaml.Node | None:
    """The checked node of the one document in `text`."""
    try:
        _check_events(text, where)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
        raise ConfigError(f"{where.at(mark)}: not valid YAML ({problem}{hint})") from error
    except yaml.YAMLError as error:  # a character that YAML does not know
        raise ConfigError(f"{where.name}: not valid YAML ({' '.join(str(error).split())})") from error
    if node is not None:
        _check_nodes(node, where)
    return node


def _check_events(text: str, where: _Where) -> None:
    """Bound the depth, before anything recursive reads it, and the number of documents."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where.at(event.start_mark)}: nested deeper than {MAX_DEPTH} levels")
        if documents > 1:
            raise ConfigError(f"{where.at(event.start_mark)}: a second document begins here; a file holds one")


def _check_nodes(root: yaml.Node, where: _Where) -> None:
    """Refuse tags, repeated keys, keys that are not texts, and aliases that expand to too many values."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise ConfigError(f"{where.at(node.start_mark)}: an alias stands inside the value that it repeats")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            _check_node(node, where)
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            open_nodes.remove(id(node))
        if sizes[id(node)] > MAX_VALUES:
            raise ConfigError(
                f"{where.at(node.start_mark)}: more than {MAX_VALUES:,} values, with the aliases written out"
            )
        return sizes[id(node)]

    size(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        yield from (part for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_node(node: yaml.Node, where: _Where) -> None:
    if node.tag not in CORE_TAGS:
        raise ConfigError(f"{where.at(node.start_mark)}: the tag {node.tag.rpartition(':')[2]!r} is not read here")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, _ in node.value:
        merges = key.tag.endswith(":merge")
        if not isinstance(key, yaml.ScalarNode) or not (merges or key.tag.endswith(":str")) or not key.value:
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise ConfigError(f"{where.at(key.start_mark)}: a key must be text, got {shown}; quote it")
        line = key.start_mark.line + 1
        if key.value in lines:
            raise ConfigError(
                f"{where.at(key.start_mark)}: '{key.value}' stands here again, first in line {lines[key.value]}; "
                "keep one"
            )
        lines[key.value] = line


def _constructed(node: yaml.Node, where: _Where) -> Any:
    loader = _Loader("")
    try:
        content = loader.construct_document(node)
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(f"{where.at(error.problem_mark)}: {' '.join(str(error.problem).split())}") from error
    except ValueError as error:  # a tag !!int before another text, or more digits than Python reads
        raise ConfigError(f"{where.at(node.start_mark)}: not a number, or one of too many digits") from error
    return _plain(content, where=where.name)


def _plain(value: Any, *, where: str) -> Any:
    """A copy without shared parts: a later change of one alias must not change the others.

    Raises:
        ConfigError: a number of more than 63 bits, or a text that UTF-8 or a path cannot hold.
    """
    if isinstance(value, dict):
        return {_plain(key, where=where): _plain(item, where=where) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where=where) for item in value]
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where}: a whole number of more than 63 bits; no setting is that large")
    if isinstance(value, str) and not _is_text(value):
        raise ConfigError(f"{where}: a text that is not UTF-8: {ascii(value)}")
    return value


def _is_text(value: str) -> bool:
    """Whether UTF-8 can write it: a lone surrogate, from bytes on the command line, it cannot; NUL no path can."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _kind(value: Any) -> str:
    return {"list": "a list", "str": "a text", "NoneType": "nothing"}.get(type(value).__name__, type(value).__name__)
