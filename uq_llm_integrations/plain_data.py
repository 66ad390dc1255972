"""Plain data in files: those of others are read in time by their length, ours are written whole."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml

from uq_llm_integrations.errors import ConfigurationError, described

MOST_BYTES = 10_000_000
"""How large a file may be."""

MOST_CHARACTERS = 200_000
"""How long a text of YAML may be."""

MOST_VALUES = 10_000
"""How many values YAML may have once its aliases are unfolded."""

MOST_LEVELS = 100
"""How deep they may stand within each other."""

MOST_DIGITS = 400
"""How long a number may be."""

_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write files, each of which is either the old one or the whole new one at any time.

    Raises ConfigurationError where one of them cannot be written; then all are the old ones.

    Example:
        replace_files({Path("calibration.json"): b"{}"})
    """
    scratch = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            _write(scratch[path], content)
        for path, written in scratch.items():
            written.replace(path)
    except OSError as error:
        names = " and ".join(map(str, contents))
        raise ConfigurationError(f"{names} cannot be written: {error}") from error
    finally:
        for written in scratch.values():
            with suppress(OSError):
                written.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Write a file, and return once it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_text(path: str | Path) -> str:
    """Return the text of a file; raises ConfigurationError where there is none, or too much.

    Example:
        read_text("uncertainty.yaml")
    """
    path, shown = Path(path), ascii(str(path))[1:-1]
    try:
        if not path.is_file():
            raise ConfigurationError(f"{shown} cannot be read: it is no file")
        if (size := path.stat().st_size) <= MOST_BYTES:
            return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{shown} is not written in UTF-8: {error.reason}") from error
    except OSError as error:
        raise ConfigurationError(f"{shown} cannot be read: {error}") from error
    raise ConfigurationError(f"{shown} has {size} bytes; allowed are {MOST_BYTES}")


def load_yaml(text: str) -> Any:
    """Return what a text of YAML says.

    Raises ConfigurationError, which names the line, for what is no YAML, or too long, deep or wide,
    for a name that stands twice in a mapping, and for a value that contains itself.

    Example:
        >>> load_yaml("n: 3")
        {'n': 3}
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigurationError(f"it has {len(text)} characters; allowed are {MOST_CHARACTERS}")
    try:
        return yaml.load(text, _BoundedLoader)
    except RecursionError as error:
        raise ConfigurationError(f"its values stand more than {MOST_LEVELS} deep") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(str(_without_lines(error))) from None


class _BoundedLoader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """Reads plain YAML of a limited size; what is wrong is on a line.

    It has its own table: other packages change the one that all of PyYAML's loaders share.
    A date is the text that is written there: no setting is a date.
    """

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        **{
            f"tag:yaml.org,2002:{kind}": getattr(yaml.SafeLoader, f"construct_yaml_{kind}")
            for kind in ("null", "bool", "int", "float", "str", "seq", "map")
        },
        "tag:yaml.org,2002:timestamp": yaml.SafeLoader.construct_yaml_str,
        None: yaml.SafeLoader.construct_undefined,
    }

    def get_single_node(self) -> yaml.Node | None:
        """Return the tree of the text."""
        root = super().get_single_node()
        if root is not None:
            _measure(root, {})
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            raise _error(node, f"a number has {len(node.value)} digits; allowed are {MOST_DIGITS}")
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
            raise _error(node, f"this is no value: {error}") from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, no name of which stands there twice."""
        if isinstance(node, yaml.MappingNode):
            names = [name for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
            seen: set[str] = set()
            for name in names:
                if name.value in seen and name.value != "<<":
                    raise _error(name, f"{described(name.value)} is there twice")
                seen.add(name.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _error(node: yaml.Node, why: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values a node has with its aliases unfolded, and how deep they stand."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise _error(node, "a value contains itself")
        return measured
    known[id(node)] = None
    parts = [_measure(part, known) for part in _parts(node)]
    size = 1 + sum(one for one, _ in parts)
    depth = 1 + max((one for _, one in parts), default=0)
    if size > MOST_VALUES:
        raise _error(node, f"there are more than {MOST_VALUES} values, aliases unfolded")
    if depth > MOST_LEVELS:
        raise _error(node, f"values stand more than {MOST_LEVELS} deep")
    known[id(node)] = size, depth
    return size, depth


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _without_lines(error: yaml.YAMLError) -> yaml.YAMLError:
    """Return the error without the line of the file in its text, in which a secret may stand."""
    for mark in (getattr(error, "problem_mark", None), getattr(error, "context_mark", None)):
        if mark is not None:
            mark.buffer = None
    return error
