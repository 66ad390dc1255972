"""Where in a configuration file something is wrong: the lines that its options stand on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.plain_data import read_text

Place = Sequence[int | str]
"""The names and indices that lead to an option."""

_Part = tuple[yaml.Node, Any]
"""A part of a file, and the mark at which it begins."""

_TOPS: tuple[tuple[str, ...], ...] = (
    (),
    ("sampling",),
    ("strategy",),
    ("generator",),
    ("generator", "vllm"),
    ("generator", "huggingface"),
)
"""Where options stand that messages name as if they stood at the top."""


def with_line(error: UncertaintyError, path: Path, place: Place) -> None:
    """Begin the message of an error with the file, and the line where it is known.

    Without a place that is in the file, it is where an option stands that the message names.
    """
    text = read_text(path)
    message = str(error)
    named = _named(message)
    within = [one for one in named if len(one) > len(place) and one[: len(place)] == list(place)]
    places = [*within, place, *named]
    line = next((line for one in places if (line := _line(text, one))), None)
    where = str(path) if line is None else f"{path}, line {line}"
    error.args = (f"{where}: {message}", *error.args[1:])


def _named(message: str) -> list[list[str]]:
    """Return what may be the names of options in a message: those in quotes first."""
    about = message.split(";", 1)[0]
    first, *others = re.findall(r"[\w.]+", about) or [""]
    return [one.split(".") for one in (first, *re.findall(r"'([\w.]+)'", about), *others)]


def _line(text: str, place: Place) -> int | None:
    """Return the line of an option, or of the innermost part around it that is there."""
    root = yaml.compose(text, yaml.SafeLoader)
    for above in _TOPS if place else ():
        top, _ = _innermost(root, above)
        if found := _child(top, place[0]):
            _, mark = _innermost(found[0], place[1:], found[1])
            return int(mark.line) + 1
    return None


def _innermost(node: yaml.Node, place: Place, mark: Any = None) -> _Part:
    """Return the part that a place leads to; names that are not there are passed by.

    Such are the types of strategies and generators, by which pydantic names them.
    """
    part = node, mark or node.start_mark
    for name in place:
        part = _child(part[0], name) or part
    return part


def _child(node: yaml.Node, name: int | str) -> _Part | None:
    """Return the part of this name or index, and where it begins."""
    if isinstance(node, yaml.SequenceNode):
        one = node.value[name] if isinstance(name, int) and name < len(node.value) else None
        return one and (one, one.start_mark)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == str(name):
            return value, key.start_mark
    return None
