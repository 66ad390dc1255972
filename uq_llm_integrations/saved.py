"""The fields of an object that is saved: as plain data, or as what a pickle can hold."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.identity import canonical, digest
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.secret_values import without_secrets
from uq_llm_integrations.settings import BACKEND_OPTIONS

PROCESS_BOUND = ("cache", "callbacks", "callback_manager", "rate_limiter")
"""Fields that serve the program rather than the model."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedFields:
    """Fields in the plain form that the constructor takes, and the values that have none."""

    plain: JsonObject = field(default_factory=dict)
    other: JsonObject = field(default_factory=dict)

    def described(self) -> dict[str, str]:
        """Return a text for each value that has no plain form, another one for another value."""
        return {name: f"{type(one).__name__} {digest(one)}" for name, one in self.other.items()}


def saved_fields(model: BaseModel, *, with_defaults: bool = False) -> SavedFields:
    """Return the fields but those that are excluded from serialization, and without secrets.

    What is called plain is read back as the very same; nothing is left out in silence.
    """
    saved = SavedFields()
    for name, one in type(model).model_fields.items():
        value = getattr(model, name)
        value = without_secrets(value) if name in BACKEND_OPTIONS else value
        is_default = _is_same(value, one.get_default(call_default_factory=True))
        if one.exclude or (is_default and not with_defaults):
            continue
        plain = _plain_form(type(model), name, value)
        if plain is not None or value is None:
            saved.plain[name] = plain
        else:
            saved.other[name] = value
    return saved


def _plain_form(kind: type[BaseModel], name: str, value: object) -> Any:
    """Return the plain data that the field reads as this value, None where there is none."""
    adapter = _adapter(kind, name)
    try:
        plain = adapter.dump_python(value, mode="json", warnings=False)
        return plain if _is_same(adapter.validate_python(plain), value) else None
    except (ValueError, TypeError, RecursionError):  # pydantic's and ours are ValueErrors
        return None


@cache
def _adapter(kind: type[BaseModel], name: str) -> TypeAdapter[Any]:
    one = kind.model_fields[name]
    annotation: Any = Annotated[one.annotation, *one.metadata] if one.metadata else one.annotation
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type has a configuration of its own
        return TypeAdapter(annotation)


def _is_same(one: object, other: object) -> bool:
    return one is other or canonical(one) == canonical(other)


@dataclass(frozen=True)
class LeftBehind:
    """Stands for the value of a field that could not be pickled."""

    name: str
    reason: str

    def error(self) -> ConfigurationError:
        """Return what is raised where the value is needed."""
        return ConfigurationError(
            f"{self.name} stayed in the process that this model comes from, since it cannot be "
            f"pickled: {self.reason}"
        )


def without_process(fields: Mapping[str, Any]) -> JsonObject:
    """Return the fields of a pickle; what only serves the program stays where it cannot go along.

    A lock, or a connection, has no meaning elsewhere.
    """
    kept = dict(fields)
    for name in kept.keys() & set(PROCESS_BOUND):
        if why_unpicklable(kept[name]):
            _log.info("%s is not pickled with its model", name)
            kept[name] = None
    return kept


def with_left_behind(fields: Mapping[str, Any]) -> JsonObject:
    """Return the fields of a pickle that always succeeds: `LeftBehind` for what would fail."""
    reasons = {name: why_unpicklable(one) for name, one in fields.items()}
    left = {name: LeftBehind(name, reason) for name, reason in reasons.items() if reason}
    return {**fields, **left}


def why_unpicklable(value: object) -> str | None:
    """Return why a value cannot be pickled, None where it can."""
    if isinstance(value, str | int | float | None):
        return None
    try:
        pickle.dumps(value)
    except Exception as error:  # any class's code, and so anything
        return str(error) or type(error).__name__
    return None
