"""What code is: functions and classes, by their names or by what they do."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cached_property
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any

PACKAGE = __name__.partition(".")[0]

NAMED = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
"""Kinds of built-in functions, which are known by their names."""

_MEMBERS = (FunctionType, property, staticmethod, classmethod, cached_property)

_MAIN = {"__main__", "__mp_main__"}
"""Each program has another module of this name."""


def is_importable(value: Any) -> bool:
    """Return whether a function or class is what its module has under its name."""
    if value.__module__ is None or value.__module__ in _MAIN:
        return False
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def is_own(value: Any) -> bool:
    """Return whether it is of this package, whose version is in every key."""
    return str(getattr(value, "__module__", "")).partition(".")[0] == PACKAGE


def code_parts(code: CodeType) -> tuple[object, ...]:
    """Return what code does: neither its name nor where it stands."""
    return (
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        (code.co_freevars, code.co_cellvars),
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        getattr(code, "co_exceptiontable", b""),
    )


def function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the code of a function, and all that it reads beside its arguments."""
    yield "", function.__code__
    yield "defaults", (function.__defaults__, function.__kwdefaults__)
    yield "attributes", vars(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name, _content(cell)
    for name in sorted(set(_global_names(function.__code__)) & function.__globals__.keys()):
        yield name, function.__globals__[name]


def class_members(kind: type) -> Iterator[tuple[str, object]]:
    """Yield what was written into the body of a class, by name."""
    for name, member in sorted(vars(kind).items()):
        is_special = name.startswith("__") or name == "_abc_impl"
        if isinstance(member, _MEMBERS):
            if not (is_dataclass(kind) and _is_generated(name, member)):
                yield name, member
        elif not is_special and not isinstance(member, NAMED):
            yield name, member


def _is_generated(name: str, member: Any) -> bool:
    """Return whether `dataclass` has written it."""
    code = getattr(member, "__code__", None)
    return name.startswith("__") and code is not None and code.co_filename == "<string>"


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet
        return ()


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
