"""The fields of a model as plain data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.generic_utils import (
    messages_to_prompt as generic_messages_to_prompt,
)
from llama_index.core.llms.llm import default_completion_to_prompt

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.faces import ModelFace

_NOT_PLAIN = "not_plain"
"""The key that describes the fields that are no plain data."""

_WRITERS = ("messages_to_prompt", "completion_to_prompt", "output_parser", "query_wrapper_prompt")
"""Fields of LlamaIndex that it leaves out itself."""

_USUAL = (None, generic_messages_to_prompt, default_completion_to_prompt)


def plain_fields(model: ModelFace) -> dict[str, Any]:
    """Return all fields in the plain form that the constructor takes, secrets left out.

    What has no such form (a ready backend, a function of one's own) is described under `not_plain`,
    in the same way in every process where it is the same.
    """
    saved = model.saved(with_defaults=True)
    for name in _WRITERS:
        if (one := getattr(model, name)) not in _USUAL:
            saved.other[name] = one
    other = {_NOT_PLAIN: saved.described()} if saved.other else {}
    return {"class_name": type(model).__name__, **saved.plain, **other}


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
    return {name: one for name, one in data.items() if name not in LEFT} | dict(given)


LEFT = ("class_name", _NOT_PLAIN)
"""What is in the data beside fields."""
