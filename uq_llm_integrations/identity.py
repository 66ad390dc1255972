"""What things are, as text: what caches, and those who share an engine, go by.

Equal things have the same text in every process, whatever its hash seed, with every number in full.
What is importable counts by its name; a function that is not (a lambda, one within another) by its
code, its defaults, and what it takes from around it. What cannot be described exactly has a text
that nothing else has: a cache may then miss, and never hits wrongly. All secrets have the same
text: they change who is let in, and no answer.
"""

from __future__ import annotations

import copyreg
import json
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property
from hashlib import sha256
from operator import itemgetter
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, SecretBytes, SecretStr

from uq_llm_integrations.code_identity import (
    NAMED,
    class_members,
    code_parts,
    function_parts,
    is_importable,
    is_own,
)
from uq_llm_integrations.version import __version__

KEY_VERSION = f"1, package {__version__}"
"""What is in every key: the first number goes up where the text of a thing changes."""

NO_PART: Mapping[str, bool] = MappingProxyType({"identity": False})
"""Metadata of a dataclass field that has no influence on an answer and its scores."""


@runtime_checkable
class Identified(Protocol):
    """Says itself what it is."""

    def identity_parts(self) -> object:
        """Return all that an answer depends on."""


@dataclass(frozen=True)
class Verbatim:
    """Something handed on as it is: the order of mappings and the types of numbers count."""

    value: object


@dataclass(frozen=True, eq=False)
class Itself:
    """Something that is like nothing but itself."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def canonical(value: object) -> str:
    """Return the text of a value.

    Example:
        >>> canonical({"b": 1.0, "a": {2, 1}})
        '{"a": {1, 2}, "b": 1}'
    """
    return _Writer().text(value)


def digest(value: object) -> str:
    """Return a hash of a value's text: 64 hexadecimal digits."""
    return sha256(canonical(value).encode()).hexdigest()


Part = tuple[str, object]
"""What a part of something is called, and the part."""


class _Writer:
    """Writes one value; it knows what it is within, since things can hold themselves."""

    def __init__(self) -> None:
        self._around: list[object] = []
        self._numbers: dict[int, int] = {}
        self._verbatim = False

    def text(self, value: object) -> str:
        simple = self._simple(value)
        if simple is None:
            simple = self._written_before(value)
        if simple is not None:
            return simple
        depths = [i for i, one in enumerate(reversed(self._around)) if one is value]
        if depths:
            return f"<{depths[0]} out>"
        self._around.append(value)
        try:
            return self._composed(value)
        finally:
            self._around.pop()

    def _written_before(self, value: object) -> str | None:
        """Return the number of code that was written already: code refers to code without end."""
        if not isinstance(value, FunctionType | type) or is_importable(value):
            return None
        if id(value) in self._numbers:
            return f"#{self._numbers[id(value)]}"
        self._numbers[id(value)] = len(self._numbers)
        return None

    def _simple(self, value: object) -> str | None:
        """Return the text of what has no parts, None for anything else."""
        match value:
            case Enum():
                return None
            case None | bool():
                return json.dumps(value)
            case str() | os.PathLike():
                return json.dumps(str(value))
            case int():
                return int.__repr__(value)
            case float():
                return self._number(float(value))
            case bytes() | bytearray() | memoryview():
                return f"bytes {sha256(value).hexdigest()}"
            case np.generic() if not value.dtype.hasobject:
                item = value.item()
                return repr(item) if isinstance(item, np.generic) else self.text(item)
        return None

    def _number(self, value: float) -> str:
        return str(int(value)) if value.is_integer() and not self._verbatim else repr(value)

    def _composed(self, value: object) -> str:
        match value:
            case Verbatim():
                return self._of_verbatim(value.value)
            case Itself():
                return mark(value.value)
            case SecretStr() | SecretBytes():
                return "secret"
            case dict() | MappingProxyType() if type(value) in (dict, MappingProxyType):
                keyed = [(self.text(key), one) for key, one in value.items()]
                if not self._verbatim:
                    keyed.sort(key=itemgetter(0))
                return "{" + ", ".join(f"{key}: {self.text(one)}" for key, one in keyed) + "}"
            case set() | frozenset() if type(value) in (set, frozenset):
                return "{" + ", ".join(sorted(map(self.text, value))) + "}"
            case list() | tuple() if type(value) in (list, tuple):
                kind = type(value).__name__ if self._verbatim else ""
                return kind + "[" + ", ".join(map(self.text, value)) + "]"
        name, parts = _parts(value)
        texts = [self._part(part) for part in parts]
        return f"{name}({', '.join(texts)})" if texts else name

    def _part(self, part: Part) -> str:
        name, value = part
        return f"{name}={self.text(value)}" if name else self.text(value)

    def _of_verbatim(self, value: object) -> str:
        before, self._verbatim = self._verbatim, True
        try:
            return f"verbatim({self.text(value)})"
        finally:
            self._verbatim = before


def _parts(value: Any) -> tuple[str, Iterable[Part]]:
    """Return the name of what has parts, and the parts."""
    if isinstance(value, ModuleType):
        return f"module {value.__name__}", ()
    if isinstance(value, NAMED):
        return f"{type(value).__name__} {value.__qualname__}", [("of", _owner(value))]
    if isinstance(value, CodeType):
        return "code", [("", Verbatim(part)) for part in code_parts(value)]
    if isinstance(value, FunctionType):
        return _function(value)
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, MethodType):
        return "method", [("", value.__func__), ("of", value.__self__)]
    if isinstance(value, property | staticmethod | classmethod | cached_property):
        return type(value).__name__, [("", one) for one in _functions(value)]
    return _object(value)


def _function(value: FunctionType) -> tuple[str, Iterable[Part]]:
    if not is_importable(value):
        return "function", function_parts(value)
    own_code = [] if is_own(value) else [("", value.__code__)]
    return f"{value.__module__}.{value.__qualname__}", own_code


def _class(value: type) -> tuple[str, Iterable[Part]]:
    if is_importable(value):
        return f"{value.__module__}.{value.__qualname__}", ()
    return f"class {value.__name__}", [("", value.__bases__), *class_members(value)]


def _owner(value: Any) -> object:
    """Return what a built-in function belongs to: a module's name, a class or an object."""
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    return owner.__name__ if isinstance(owner, ModuleType) else owner


def _functions(value: Any) -> Iterator[object]:
    names = ("fget", "fset", "fdel", "func", "__func__")
    return (getattr(value, name) for name in names if getattr(value, name, None))


def _object(value: Any) -> tuple[str, Iterable[Part]]:
    kind = ("", type(value))
    if isinstance(value, Identified):
        return "", [kind, ("", value.identity_parts())]
    if isinstance(value, Enum):
        return "", [kind, ("", value.name)]
    if isinstance(value, np.ndarray):
        return "array", _array(value)
    if (tensor := _tensor(value)) is not None:
        return "tensor", tensor
    if is_dataclass(value):
        counted = (one for one in fields(value) if one.metadata.get("identity", True))
        return "", [kind, *((one.name, getattr(value, one.name, None)) for one in counted)]
    if isinstance(value, BaseModel):
        names = [*type(value).model_fields, *(value.model_extra or {})]
        return "", [kind, *((name, getattr(value, name)) for name in names)]
    return _reduced(value, kind)


def _array(value: Any) -> list[Part]:
    content = value.tolist() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    return [("", value.dtype.str), ("", value.shape), ("", content)]


def _tensor(value: Any) -> list[Part] | None:
    """Return the parts of a tensor of torch, which is not imported for that."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    bare = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return [("", str(value.dtype)), ("", tuple(value.shape)), ("", bare.tobytes())]


def _reduced(value: Any, kind: Part) -> tuple[str, Iterable[Part]]:
    """Return the parts that any other object is pickled by; what has none counts as itself."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        parts = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:  # another class's code, and so anything
        return mark(value), ()
    if isinstance(parts, str):
        return "", [kind, ("", parts)]
    made_of, state, items, pairs = parts[:2], *(*parts[2:5], None, None, None)[:3]
    return "", [kind, ("", made_of), ("", state), ("", list(items or ())), ("", list(pairs or ()))]


_marks: dict[int, tuple[weakref.ref[object], str]] = {}


def mark(value: object) -> str:
    """Return a text that no other object has, in no process; the same for the same object.

    One that takes no weak references has another one each time.
    """
    known = _marks.get(id(value))
    if known and known[0]() is value:
        return f"unique {known[1]} {os.getpid()}"  # a forked child's goes its own way
    text, key = uuid4().hex, id(value)
    with suppress(TypeError):
        _marks[key] = weakref.ref(value, lambda gone: _forget(key, gone)), text
    return f"unique {text} {os.getpid()}"


def _forget(key: int, gone: weakref.ref[object]) -> None:
    known = _marks.get(key)
    if known and known[0] is gone:
        del _marks[key]
