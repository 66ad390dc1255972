"""Conditions written as text: `mean_nll > 0.6 or agreement < 0.5`."""

import ast
import math
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from uq_llm_integrations.errors import ConfigurationError, UncertaintyError, described, reason
from uq_llm_integrations.strategies import quantities
from uq_llm_integrations.strategies.condition_grammar import read_condition, shown
from uq_llm_integrations.strategies.conditions import (
    Comparison,
    Condition,
    Operator,
    Quantity,
    is_finite,
)

_OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
}
_COMPARISON = "a comparison such as `entropy > 1.5`"
_QUANTITY = "a method's name, `agreement`, `confidence`, or `worst_window(entropy, 8)`"
_LONGEST, _MOST_BRACKETS = 5000, 4
_WINDOWS: dict[str, Callable[..., Quantity]] = {
    "token_mean": quantities.token_mean,
    "token_max": quantities.token_max,
    "worst_window": quantities.worst_window,
}


def as_condition(value: Condition | str) -> Condition:
    """Return the condition itself, or the one that a text describes.

    Example:
        >>> as_condition("entropy > 1.5 and not agreement >= 0.5")
        (entropy > 1.5 and not agreement >= 0.5)
    """
    if isinstance(value, Condition):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{described(value)} is no condition; allowed are conditions and text"
        )
    return parse_condition(value)


def is_readable(condition: Condition) -> bool:
    """Return whether the text of a condition is read as the very same."""
    try:
        return parse_condition(repr(condition)) == condition
    except UncertaintyError:
        return False


When = Annotated[
    Condition | str,
    BeforeValidator(as_condition),
    PlainSerializer(repr, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["mean_nll > 0.6 or entropy > 2"]}),
]
"""A condition or its text, as a field that pydantic can build from plain data."""


def parse_condition(text: str) -> Condition:
    """Return the condition that a text describes.

    A comparison has a method's name, `agreement`, `confidence`, or a window such as
    `worst_window(entropy, 8)` on its left, and on its right a number, or
    `calibrated("file.json", "name")`. `and`, `or`, `not` and brackets compose them. Raises
    ConfigurationError for anything else, and for more than 20,000 characters, 32 brackets and
    `not` around each other, or 100 comparisons.

    Example:
        >>> parse_condition("worst_window(entropy, 8) > 3")
        worst_window(entropy, 8) > 3
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"a condition is a text, not {type(text).__name__}")
    return read_condition(text, _comparison)


def _comparison(text: str) -> Condition:
    """Return what the text of one comparison says, which has few brackets and no deep parts."""
    if len(text) > _LONGEST or text.count("(") > _MOST_BRACKETS:
        raise ConfigurationError(f"{shown(text)} cannot be read; wanted {_COMPARISON}")
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = getattr(error, "msg", None) or reason(error)
        raise ConfigurationError(f"the condition {shown(text)} cannot be read: {why}") from error
    match node:
        case ast.Compare(left=left, ops=[sign], comparators=[right]):
            if operator := _OPERATORS.get(type(sign)):
                return Comparison(_quantity(left, text), operator, _threshold(right, text))
    raise _unreadable(node, text, _COMPARISON)


def _quantity(node: ast.expr, text: str) -> Quantity:
    match node:
        case ast.Name(id="agreement"):
            return quantities.agreement()
        case ast.Name(id="confidence"):
            return quantities.confidence()
        case ast.Name(id="support"):
            return quantities.support()
        case ast.Name(id=name):
            return quantities.score(name)
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=method), *sizes], keywords=[]):
            least = 1 if name == "worst_window" else 0
            if name in _WINDOWS and least <= len(sizes) <= 1:
                return _WINDOWS[name](method, *(_size(size, text) for size in sizes))
    raise _unreadable(node, text, _QUANTITY)


def _size(node: ast.expr, text: str) -> int:
    match node:
        case ast.Constant(value=int(size)) if not isinstance(size, bool):
            return size
    raise _unreadable(node, text, "a number of tokens")


def _threshold(node: ast.expr, text: str) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if _is_number(number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if (
            _is_number(number)
        ):
            return -float(number)
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -math.inf
        case ast.Call(
            func=ast.Name(id="calibrated"),
            args=[ast.Constant(value=str(path)), ast.Constant(value=str(name))],
        ):
            return quantities.load_threshold(path, name)
    raise _unreadable(node, text, 'a number or `calibrated("file.json", "name")`')


def _is_number(value: float) -> bool:
    return not isinstance(value, bool) and is_finite(value)


def _unreadable(node: ast.expr, text: str, wanted: str) -> ConfigurationError:
    part = ast.get_source_segment(text, node) or text
    why = f"{shown(part)} in the condition {shown(text)} cannot be read; wanted {wanted}"
    return ConfigurationError(why)
