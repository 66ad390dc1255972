"""Tools that a model may call: functions in the shape of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping

from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import JsonMapping

SHAPE = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}}'


def tool_specs(tools: object) -> tuple[JsonMapping, ...]:
    """Return tools as a tuple, None as an empty one.

    Raises InvalidRequestError for what is no function with a name, by its type where it is a tool
    that only its provider runs.

    Example:
        >>> tool_specs([{"type": "function", "function": {"name": "add"}}])[0]["function"]["name"]
        'add'
    """
    if tools is None:
        return ()
    if not isinstance(tools, list | tuple):
        raise InvalidRequestError(f"tools is {described(tools)}; allowed is a list of {SHAPE}")
    for one in tools:
        _check(one)
    return tuple(tools)


def _check(tool: object) -> None:
    match tool:
        case {"type": str(kind)} if kind != "function":
            raise InvalidRequestError(
                f"the tool {described(tool)} is run by its provider, and this model has none of "
                f"type {described(kind)}; allowed are functions, {SHAPE}"
            )
        case {"function": {"name": str(name)} as function} if name:
            _check_function(name, function)
        case _:
            raise InvalidRequestError(
                f"the tool {described(tool)} is no function; allowed are {SHAPE}"
            )


def _check_function(name: str, function: JsonMapping) -> None:
    for field, allowed in (("parameters", Mapping), ("description", str)):
        value = function.get(field)
        if value is not None and not isinstance(value, allowed):
            kind = "a text" if allowed is str else "a JSON Schema"
            raise InvalidRequestError(
                f"{field} of the tool {described(name)} is {described(value)}; allowed is {kind}"
            )
