"""The fields of a model as plain data, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.faces import ModelFace
from uq_llm_integrations.records import EarlyStop

_NOT_PLAIN = "not_plain"
"""The key that describes the fields that are no plain data."""


def plain_fields(model: ModelFace) -> dict[str, Any]:
    """Return all fields but those that serialization leaves out, such as a ready backend.

    What is no plain data (a strategy, a condition) is described under `not_plain`, unless it is the
    default.
    """
    plain_data: dict[str, Any] = {"class_name": type(model).__name__}
    other: dict[str, str] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if field.exclude:
            continue
        if _is_plain(plain := _plain(value)):
            plain_data[name] = plain
        elif value != field.get_default(call_default_factory=True):
            other[name] = repr(value)
    return plain_data | ({_NOT_PLAIN: other} if other else {})


def arguments_of(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments.

    Raises ConfigurationError where a field that is no plain data is not given again.
    """
    missing = {name: one for name, one in data.get(_NOT_PLAIN, {}).items() if name not in given}
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} cannot be read back from {missing}; give them again: "
            f"from_dict(data, {', '.join(f'{name}=...' for name in missing)})"
        )
    return {name: one for name, one in data.items() if name not in _LEFT} | dict(given)


_LEFT = ("class_name", _NOT_PLAIN)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, EarlyStop):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
