"""Grammars of objects in which white space cannot go on for ever.

A JSON Schema as vLLM takes it allows any white space between two values, and small models may find
no end of it. Here one space or line break at a time is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.sampling_params import StructuredOutputsParams

SPACES = 1


def structured_outputs(given: Mapping[str, Any]) -> StructuredOutputsParams:
    """Return vLLM's parameters of what a mapping says by their names.

    A schema that xgrammar does not serve is left to vLLM, which has another backend for it.
    """
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    schema = given.get("json") or ({"type": "object"} if given.get("json_object") else None)
    schema = json.loads(schema) if isinstance(schema, str) else schema
    if schema is None or has_xgrammar_unsupported_json_features(schema):
        return StructuredOutputsParams(**given)
    form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": SPACES}
    return StructuredOutputsParams(structural_tag=_tag(form))


def sparing(given: StructuredOutputsParams) -> StructuredOutputsParams:
    """Return the same grammar of tool calls, with as little white space in their arguments."""
    if not given.structural_tag:
        return given
    tag = json.loads(given.structural_tag)
    return type(given)(structural_tag=_tag(_spared(tag["format"]))) if "format" in tag else given


def _tag(form: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": form})


def _spared(form: Any) -> Any:
    if isinstance(form, list):
        return [_spared(one) for one in form]
    if not isinstance(form, dict):
        return form
    if form.get("type") == "json_schema":
        return form | {"max_whitespace_cnt": SPACES}
    return {name: _spared(part) for name, part in form.items()}
