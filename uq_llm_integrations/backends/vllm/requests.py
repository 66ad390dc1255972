"""From requests to vLLM's SamplingParams, and when the probe may observe them.

A JSON Schema as vLLM takes it allows any white space between two values, and small models may find
no end of it. Here one space or line break at a time is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from uq_llm_integrations.backends.capabilities import MASKING_PARAMETERS, PENALTIES
from uq_llm_integrations.backends.sampling_values import sampling_value
from uq_llm_integrations.backends.vllm.grammar_schemas import (
    grammar_schema,
    is_served_by_xgrammar,
)  # fmt: skip  # a list of names
from uq_llm_integrations.backends.vllm.sampling_compat import (
    bad_tokens,
    check_readable,
    most_bad_tokens,
    repetition_detection,
    sampling_params,
    v2_limits,
)
from uq_llm_integrations.backends.vllm.worker.protocol import (
    REQUEST_KEY,
    SCORE_KEY,
    STOP_KEY,
    TOKENS_KEY,
)
from uq_llm_integrations.errors import InvalidRequestError, described, reason
from uq_llm_integrations.records import Request

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM

Json = dict[str, "Json"] | list["Json"] | str | float | bool | None

SPACES = 1

_KEYS = {REQUEST_KEY, SCORE_KEY, STOP_KEY, TOKENS_KEY}
_NAMING = frozenset({"allowed_token_ids", "logit_bias", "stop_token_ids", "bad_words"})


def generation_params(
    request: Request,
    index: int,
    *,
    observed_as: str | None,
    keeps_tokens: bool = False,
    stop_token: int | None = None,
    fallback_k: int,
    whole: bool,
) -> SamplingParams:
    """Return the parameters of a request's sample of this index.

    Samples have seeds of their own, counted up from the request's. `observed_as` is the id under
    which the probe keeps the sample; without one, the top `fallback_k` are requested to bound what
    the probe would have seen. `keeps_tokens` says that the probe can keep the log-probabilities of
    the sampled tokens, which the engine then need not return. `stop_token` is what an early stop
    forces. `whole` requests one output at the end, not one a step. Its text is then left to
    `detokenize`, unless a stop string needs it on the way: vLLM would also look up the text of
    every log-probability.
    """
    values = _own_values(request, index)
    extra: dict[str, object] = dict(values.pop("extra_args", {}))
    if whole and not values.get("stop"):
        values["detokenize"] = False
    k: int | None = request.top_logprobs
    if observed_as:
        extra[REQUEST_KEY] = observed_as
        if request.early_stop and stop_token is not None:
            rule = request.early_stop
            extra[STOP_KEY] = [rule.statistic, rule.window, rule.above, stop_token]
            values["stop_token_ids"] = [*values.get("stop_token_ids", ()), stop_token]
    elif k != -1:
        k = max(request.top_logprobs, fallback_k)
    if keeps_tokens and not k:
        k = None
    check_readable({**values, "extra_args": extra})
    # Not cloned, since they are for this request alone.
    return sampling_params(**values, logprobs=k, extra_args=extra, skip_clone=True, is_whole=whole)


def _own_values(request: Request, index: int) -> dict[str, Any]:
    """Return the values that a caller has given, as a sample's own and of vLLM's own types."""
    values = {name: value for name, value in request.sampling.items() if value is not None}
    values.setdefault("max_tokens", None)  # vLLM's own default is 16
    if "seed" in values:
        values["seed"] = sampling_value("seed", values["seed"] + index)
    if taken := _KEYS & values.get("extra_args", {}).keys():
        raise InvalidRequestError(
            f"extra_args has {described(min(taken))}, which only the backend may set"
        )
    for name, read in _OPTIONS.items():
        if isinstance(values.get(name), Mapping):
            values[name] = _read(name, read, values[name])
    return values


def _read(
    name: str, read: Callable[[Mapping[str, Any]], object], given: Mapping[str, Any]
) -> object:
    try:
        return read(given)
    except Exception as error:  # vLLM's own types raise what they like
        raise InvalidRequestError(
            f"{name} is {described(given)}, which vLLM refuses: {reason(error)}"
        ) from error


def scoring_params(k: int, scored: tuple[str, int] | None, *, reads_cache: bool) -> SamplingParams:
    """Return the parameters that score a prompt. vLLM always generates a token, which is unused.

    `scored` is the name under which the probe keeps the statistics, and the index of the first
    token that they are of. With `reads_cache` the rows of cached tokens are uninitialised memory;
    they would break the detokenizer.
    """
    return sampling_params(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=k,
        detokenize=False,
        skip_reading_prefix_cache=not reads_cache,
        extra_args={SCORE_KEY: scored} if scored else None,
    )


def first_token_params(name: str, token_ids: list[int], k: int) -> SamplingParams:
    """Return the parameters that score some tokens as the first behind a prompt."""
    return sampling_params(
        max_tokens=1,
        temperature=0.0,
        logprobs=k,
        detokenize=False,
        extra_args={REQUEST_KEY: name, TOKENS_KEY: (tokens_name(name), token_ids)},
    )


def tokens_name(name: str) -> str:
    """Return the name under which the probe keeps what `first_token_params` scores."""
    return f"{name}-tokens"


def early_stop_token(llm: AsyncLLM, request: Request) -> int | None:
    """Return the token that an early stop forces: one that the model does not sample by itself.

    An id of the vocabulary that no token has, else a special token that ends nothing.
    """
    if request.early_stop is None:
        return None
    tokenizer, size = llm.get_tokenizer(), llm.model_config.get_vocab_size()
    if size > len(tokenizer):
        return int(size - 1)
    taken = {tokenizer.eos_token_id, *(request.sampling.get("stop_token_ids") or ())}
    unused = [token for token in tokenizer.all_special_ids if token not in taken]
    if not unused:
        raise InvalidRequestError("an early stop needs a token that the model does not sample")
    return int(unused[-1])


def check_seed(request: Request, config: VllmConfig) -> None:
    """Raise InvalidRequestError where a seed could kill the engine, see `launch`."""
    if (
        request.sampling.get("seed") is not None
        and config.device_config.device_type == "cpu"
        and config.scheduler_config.enable_chunked_prefill
    ):
        raise InvalidRequestError(
            "a seed together with chunked prefill can kill vLLM on the CPU; "
            "start the engine with enable_chunked_prefill=False or leave the seed out"
        )


def check_engine_limits(request: Request, llm: AsyncLLM) -> None:
    """Raise InvalidRequestError for what would end the engine of all callers."""
    check_seed(request, llm.vllm_config)
    named = {name: one for name, one in request.sampling.items() if name in _NAMING and one}
    if not named or not llm.vllm_config.use_v2_model_runner:
        return
    counts = {name: len(one) for name, one in named.items() if name != "bad_words"}
    if not request.sampling.get("min_tokens"):
        counts.pop("stop_token_ids", None)
    limits = {**v2_limits(), "bad_words": most_bad_tokens()}
    if words := named.get("bad_words"):
        counts["bad_words"] = bad_tokens(words, llm.get_tokenizer())
    for name, count in counts.items():
        if count > limits[name]:
            raise InvalidRequestError(f"{name} has {count} tokens; allowed are {limits[name]}")


def why_not_observed(request: Request, *, use_v2_model_runner: bool) -> str | None:
    """Return why the probe would see another distribution than the log-probabilities come from."""
    changed = {name for name in MASKING_PARAMETERS if request.sampling.get(name)}
    if use_v2_model_runner:
        changed |= {
            name
            for name, neutral in PENALTIES.items()
            if request.sampling.get(name, neutral) != neutral
        }
    if not changed:
        return None
    return f"{', '.join(sorted(changed))} changes the distribution before the probe sees it"


def structured_outputs(given: Mapping[str, Any]) -> StructuredOutputsParams:
    """Return vLLM's parameters of what a mapping says by their names.

    A schema that xgrammar does not serve is left to vLLM, which has another backend for it. Raises
    InvalidRequestError, which names the part, where it has none.
    """
    from vllm.sampling_params import StructuredOutputsParams

    params = StructuredOutputsParams(**given)
    schema = params.json or ({"type": "object"} if params.json_object else None)
    if schema is None:
        return params
    schema = grammar_schema(json.loads(schema) if isinstance(schema, str) else schema)
    if not is_served_by_xgrammar(schema):
        return StructuredOutputsParams(**{**given, "json": schema})
    form: Json = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": SPACES}
    return StructuredOutputsParams(structural_tag=_tag(form))


def with_little_space(given: StructuredOutputsParams) -> StructuredOutputsParams:
    """Return the same grammar of tool calls, with as little white space in their arguments."""
    if not given.structural_tag:
        return given
    tag = json.loads(given.structural_tag)
    return type(given)(structural_tag=_tag(_spared(tag["format"]))) if "format" in tag else given


def _tag(form: Json) -> str:
    return json.dumps({"type": "structural_tag", "format": form})


def _spared(form: Json) -> Json:
    if isinstance(form, list):
        return [_spared(one) for one in form]
    if not isinstance(form, dict):
        return form
    if form.get("type") == "json_schema":
        return {**form, "max_whitespace_cnt": SPACES}
    return {name: _spared(part) for name, part in form.items()}


_OPTIONS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "structured_outputs": structured_outputs,
    "repetition_detection": repetition_detection,
}
"""What makes vLLM's own objects of mappings."""
