"""The reaches into vLLM's inside that say which of its backends serves a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping

from uq_llm_integrations.backends.reaches import reach
from uq_llm_integrations.backends.vllm.client_compat import vllm_errors


@reach(
    "vllm.v1.structured_output.backend_xgrammar:has_xgrammar_unsupported_json_features(schema)",
    "vllm.sampling_params:StructuredOutputsParams(structural_tag)",
)
def why_not_by_xgrammar(schema: Mapping[str, object]) -> str | None:
    """Return why xgrammar does not serve a JSON Schema, None where it does."""
    from vllm.v1.structured_output import backend_xgrammar

    if backend_xgrammar.has_xgrammar_unsupported_json_features(schema):
        return "xgrammar does not serve its keywords"
    try:
        backend_xgrammar.xgr.Grammar.from_json_schema(dict(schema))
    except Exception as error:  # of C++, whatever it is
        return str(error).strip()
    return None


@reach(
    "vllm.v1.structured_output.backend_guidance:has_guidance_unsupported_json_features(schema)",
    "vllm.v1.structured_output.backend_guidance:validate_guidance_grammar(sampling_params)",
)
def why_not_by_others(schema: Mapping[str, object]) -> str | None:
    """Return why vLLM has no other backend for a JSON Schema, None where it may have one."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.structured_output import backend_guidance

    if backend_guidance.has_guidance_unsupported_json_features(schema):
        return None  # the last one decides when the request is sent
    params = SamplingParams(structured_outputs=StructuredOutputsParams(json=dict(schema)))
    try:
        backend_guidance.validate_guidance_grammar(params)
    except (ValueError, vllm_errors().client) as error:
        return str(error).strip()
    return None
