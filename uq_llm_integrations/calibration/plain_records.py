"""Frozen dataclasses of numbers and texts: to plain data and, checked, back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from uq_llm_integrations.errors import ConfigurationError, reason
from uq_llm_integrations.records import JsonObject


class PlainRecord:
    """The base of what calibration gives: it can be written as JSON and read again."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    def to_dict(self) -> JsonObject:
        """Return the fields as plain data for `json.dumps`."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # each is a dataclass

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote.

        Raises ConfigurationError for fields that are missing, unknown or of another kind.
        """
        try:
            text = json.dumps(dict(data), allow_nan=False)
            record: Self = _adapter(cls).validate_json(  # type: ignore[arg-type]  # it is hashable
                text, strict=True
            )
        except ValidationError as error:
            why = reason(error).removeprefix(": ")  # it is of the whole
            raise ConfigurationError(f"{cls.__name__}: {why}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{cls.__name__}: {error}") from error
        return record


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
