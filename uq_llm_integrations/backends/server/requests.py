"""From requests to bodies of `/v1/completions`, by the names that vLLM's server has for them."""

from __future__ import annotations

from collections.abc import Mapping

from uq_llm_integrations.backends.sampling_values import sampling_value
from uq_llm_integrations.backends.server.contact import Facts
from uq_llm_integrations.backends.server.grammar_requests import (
    server_options,
    structured_outputs,
)
from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import Request

DEFAULTS: Mapping[str, object] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""vLLM's own, as the embedded engine has them. A server takes a model's generation_config for what
is not said."""

NOT_OF_SERVERS = frozenset({"skip_reading_prefix_cache"})
"""Sampling parameters that a server's requests do not have."""


def completion_body(
    request: Request, facts: Facts, *, n: int, index: int = 0, stream: bool = False
) -> dict[str, object]:
    """Return the body that asks for n samples, of which the first is the request's `index`-th."""
    body: dict[str, object] = {
        "model": facts.model,
        "prompt": list(request.prompt_ids),
        "n": n,
        "return_token_ids": True,
        **DEFAULTS,
        **_server_values(request, index),
    }
    if (k := top_k(request.top_logprobs, facts)) is not None:
        body |= {"logprobs": k, "return_tokens_as_token_ids": True}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if facts.has_plugin:
        body["uncertainty"] = "rows" if facts.is_exact else False
    return body


def top_k(requested: int, facts: Facts) -> int | None:
    """Return the k that is asked for, None where rows alone say all that is wanted."""
    if facts.is_exact:
        return requested or None
    return requested if requested == -1 else max(requested, facts.fallback_k)


def check_for_server(request: Request, facts: Facts) -> None:
    """Raise InvalidRequestError for what a server's requests cannot say."""
    for name in NOT_OF_SERVERS & request.sampling.keys():
        if request.sampling[name] is not None:
            raise InvalidRequestError(
                f"{name} is {described(request.sampling[name])}; a server takes no {name}"
            )
    _xargs(request.sampling.get("extra_args") or {})
    if request.sampling.get("max_tokens") is None and facts.context_length is None:
        raise InvalidRequestError(
            "max_tokens is None; the server does not say how long its context is, so give it"
        )
    if request.early_stop and not facts.is_exact:
        raise InvalidRequestError(f"an early stop needs exact statistics: {facts.why_inexact}")


def _server_values(request: Request, index: int) -> dict[str, object]:
    """Return the values that a caller has given, as a server has them."""
    values = {name: value for name, value in request.sampling.items() if value is not None}
    if "seed" in values:
        values["seed"] = sampling_value("seed", values["seed"] + index)
    if "logit_bias" in values:
        values["logit_bias"] = {str(key): one for key, one in values["logit_bias"].items()}
    if extra := values.pop("extra_args", None):
        values["vllm_xargs"] = _xargs(extra)
    if "structured_outputs" in values:
        values["structured_outputs"] = structured_outputs(values["structured_outputs"])
    if "repetition_detection" in values:
        values["repetition_detection"] = server_options(values["repetition_detection"])
    return values


def _xargs(extra: Mapping[str, object]) -> dict[str, object]:
    """Return extra arguments as a server takes them: numbers, texts and lists of both."""
    for name, value in extra.items():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) for one in parts):
            raise InvalidRequestError(
                f"extra_args[{name!r}] is {described(value)}; a server takes numbers, texts and "
                "lists of them"
            )
    return dict(extra)
