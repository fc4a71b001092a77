"""The nearest known key for an unknown one: in its section, in another one, or by the name that other tools use."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from smpo.core.checks import did_you_mean
from smpo.core.flag_names import FOREIGN_FLAGS, flag_hint

SURE = 0.72  # a likeness, in [0, 1], that names from other sections need; in the key's own section 0.5 is enough


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field of this annotation may hold: X of "X | None"."""
    return [one for one in (annotation, *get_args(annotation)) if inspect.isclass(one) and issubclass(one, BaseModel)]


def dotted_keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key of a section and of those in it, dotted."""
    for name, field in model.model_fields.items():
        yield above + name
        for section in sections_of(field.annotation):
            yield from dotted_keys(section, f"{above}{name}.")


def key_hint(path: str, siblings: Iterable[str], others: Iterable[str]) -> str:
    """The hint for the unknown key `path`, or an empty text.

    Args:
        path: dotted.
        siblings: last parts of the keys that its section has.
        others: all dotted keys of a recipe.
    """
    *_, key = path.split(".")
    others = list(others)
    if key in FOREIGN_FLAGS and FOREIGN_FLAGS[key].name != path:
        return flag_hint(key)
    same = [other for other in others if other.rpartition(".")[2] == key and other != path]
    if same:
        near = [other for other in same if other.partition(".")[0] == path.partition(".")[0]] or same
        return f" Did you mean {' or '.join(repr(other) for other in near[:3])}?"
    return did_you_mean(key, siblings) or did_you_mean(path, others, likeness=SURE)
