"""Every reach into vLLM's sampling parameters that is made in the client's process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.reaches import reach
from uq_llm_integrations.errors import InvalidRequestError, described, reason

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.sampling_params import RepetitionDetectionParams
    from vllm.tokenizers import TokenizerLike

_BIAS = "vllm.v1.worker.gpu.sample.logit_bias"

MODEL_ENDS = 8
"""How many tokens a model itself may name that end a text, beside those of a request."""


@reach(
    "vllm:SamplingParams(logprobs, flat_logprobs, prompt_logprobs, detokenize, output_kind, "
    "skip_clone, skip_reading_prefix_cache, extra_args)",
    "vllm.sampling_params:RequestOutputKind.FINAL_ONLY",
)
def sampling_params(*, is_whole: bool | None = None, **values: object) -> SamplingParams:
    """Return vLLM's sampling parameters, with log-probabilities in flat columns.

    `is_whole` requests one output at the end, or for one a step with all tokens so far.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind as Kind

    if is_whole is not None:
        values["output_kind"] = Kind.FINAL_ONLY if is_whole else Kind.CUMULATIVE
    return SamplingParams(flat_logprobs=True, **values)


@reach("vllm.sampling_params:RepetitionDetectionParams(max_pattern_size, min_count)")
def repetition_detection(given: Mapping[str, object]) -> RepetitionDetectionParams:
    """Return vLLM's parameters of what a mapping says by their names."""
    from vllm.sampling_params import RepetitionDetectionParams

    return RepetitionDetectionParams(**given)


def check_readable(values: Mapping[str, object]) -> None:
    """Raise InvalidRequestError for a value that the engine's process could not read.

    Each is encoded and decoded, strictly by the installed vLLM's type of the field, as it will be
    on its way. What the engine cannot decode would end its reading of any further requests.
    """
    for name, value in values.items():
        try:
            _round_trip(name)(value)
        except Exception as error:  # also what vLLM's own types raise
            raise InvalidRequestError(
                f"{name} is {described(value)}, which vLLM's engine cannot read: {reason(error)}"
            ) from error


@cache
@reach("vllm:SamplingParams.__struct_fields__")
def _round_trip(name: str) -> Callable[[object], object]:
    """Return what a value of a sampling parameter is for the engine's process."""
    import msgspec
    from vllm import SamplingParams

    kinds = {field.name: field.type for field in msgspec.structs.fields(SamplingParams)}
    if name not in kinds:
        raise TypeError("the installed version has no such parameter")
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kinds[name]).decode
    return lambda value: decode(encode(value))


@reach(
    f"{_BIAS}:MAX_NUM_ALLOWED_TOKEN_IDS",
    f"{_BIAS}:MAX_NUM_LOGIT_BIAS_TOKENS",
    f"{_BIAS}:MAX_NUM_STOP_TOKEN_IDS",
)
def v2_limits() -> Mapping[str, int]:
    """Return how many tokens each parameter may name on vLLM's V2 model runner.

    Its worker, and with it the engine, ends where one names more. Stop tokens count with
    `min_tokens` only.
    """
    from vllm.v1.worker.gpu.sample import logit_bias

    return {
        "allowed_token_ids": logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS,
        "logit_bias": logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS,
        "stop_token_ids": logit_bias.MAX_NUM_STOP_TOKEN_IDS - MODEL_ENDS,
    }


@reach("vllm.envs:VLLM_MAX_BAD_WORDS_TOTAL_TOKENS")
def most_bad_tokens() -> int:
    """Return how many tokens all bad words together may have on the V2 model runner."""
    from vllm import envs

    return int(envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS)


def bad_tokens(words: list[str], tokenizer: TokenizerLike) -> int:
    """Return how many tokens words have, each at the beginning of a text and within one."""
    written = [f"{prefix}{word.lstrip()}" for word in words for prefix in ("", " ")]
    return sum(len(tokenizer.encode(one, add_special_tokens=False)) for one in written)
