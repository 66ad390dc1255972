"""What a backend can serve, and checks of a request that need no engine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uq_llm_integrations.errors import (
    EmptyPromptError,
    InvalidRequestError,
    PromptTooLongError,
    suggestion,
)
from uq_llm_integrations.records import EarlyStop, Request

MAX_N = 128
"""The most candidates that one request may ask for, unless the backend is given another cap."""

SAMPLING_PARAMETERS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "max_tokens",
        "min_tokens",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "bad_words",
        "logit_bias",
        "allowed_token_ids",
        "structured_outputs",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "include_stop_str_in_output",
        "repetition_detection",
        "thinking_token_budget",
        "watermarking",
        "skip_reading_prefix_cache",
        "routed_experts_prompt_start",
        "stream_interval",
        "extra_args",
    }
)
"""vLLM's sampling parameters that a caller may set."""

MANAGED_PARAMETERS = frozenset(
    {
        "n",
        "logprobs",
        "flat_logprobs",
        "logprob_token_ids",
        "prompt_logprobs",
        "prompt_logprob_token_ids",
        "prompt_logprob_start",
        "detokenize",
        "output_kind",
        "skip_clone",
        "trace_decode_token_ids",
    }
)
"""vLLM's sampling parameters that the backend sets itself."""

MASKING_PARAMETERS = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "logit_bias",
        "min_tokens",
    }
)
"""Parameters that change the logits, but not the log-probabilities that the engine returns. They
matter where the probe sees the logits only."""

PENALTIES = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
"""Parameters that do so on vLLM's V2 model runner only, with the values that do nothing."""

_RANGES = {
    "temperature": (0.0, math.inf),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.0, math.inf),
    "max_tokens": (1, math.inf),
    "min_tokens": (0, math.inf),
}


@dataclass(frozen=True)
class Capabilities:
    """What a backend can serve. None stands for what is not known before the engine runs."""

    model: str
    vocabulary_size: int | None
    context_length: int | None
    max_top_logprobs: int
    """The largest k for top log-probabilities, -1 for the whole vocabulary."""
    max_n: int
    """The most candidates that one request may ask for."""
    why_inexact: str | None = None
    """Why exact statistics cannot be had, None where they can."""
    why_no_activations: str | None = "it shows no hidden states and no attention"
    """Why hidden states and attention cannot be had, None where they can."""


def check_request(request: Request, capabilities: Capabilities) -> None:
    """Raise InvalidRequestError for a request that no engine with these capabilities can serve."""
    if not request.prompt_ids:
        raise EmptyPromptError
    context_length = capabilities.context_length
    if context_length is not None and len(request.prompt_ids) >= context_length:
        raise PromptTooLongError(len(request.prompt_ids), context_length)
    if request.n != 1:
        check_n(request.n, capabilities.max_n)
    if request.top_logprobs != 0:
        check_top_logprobs(request.top_logprobs, capabilities.max_top_logprobs)
    check_sampling(request.sampling)
    if request.early_stop:
        check_early_stop(request.early_stop, request.sampling)


def check_text(token_ids: Sequence[int], size: int | None, context: int | None) -> None:
    """Raise InvalidRequestError for a text that cannot pass through the model as a whole.

    `size` is that of the vocabulary and `context` of the context, None where it is not known.
    """
    if not token_ids:
        raise EmptyPromptError
    if context is not None and len(token_ids) > context:
        raise InvalidRequestError(
            f"a text has {len(token_ids)} tokens; at most {context} fit into the context"
        )
    check_ids(token_ids, size)


def check_ids(token_ids: Sequence[int], size: int | None) -> None:
    """Raise InvalidRequestError for a token that a vocabulary of this size does not have."""
    if size is not None and not all(0 <= token < size for token in token_ids):
        wrong = next(token for token in token_ids if not 0 <= token < size)
        raise InvalidRequestError(f"there is no token {wrong}; allowed are 0 to {size - 1}")


def check_early_stop(rule: EarlyStop, sampling: Mapping[str, object]) -> None:
    """Raise InvalidRequestError for a rule that can never work."""
    if isinstance(rule.above, bool) or not isinstance(rule.above, int | float):
        raise InvalidRequestError(f"the early stop's threshold is {rule.above!r}, not a number")
    if math.isnan(rule.above):
        raise InvalidRequestError("the early stop's threshold is NaN; it must be a number")
    if isinstance(rule.window, bool) or not isinstance(rule.window, int) or rule.window < 1:
        raise InvalidRequestError(
            f"the early stop's window is {rule.window!r}; allowed is 1 or more"
        )
    if rule.statistic not in ("entropy", "self_certainty"):
        raise InvalidRequestError(
            f"the early stop's statistic is {rule.statistic!r}; "
            "allowed are 'entropy' and 'self_certainty'"
        )
    for name in ("structured_outputs", "min_tokens"):
        if sampling.get(name):
            raise InvalidRequestError(f"an early stop cannot end a sample under {name}")


def check_n(n: int, max_n: int) -> None:
    """Raise InvalidRequestError unless 1 <= n <= max_n."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= max_n:
        raise InvalidRequestError(f"n is {n!r}; allowed are whole numbers from 1 to {max_n}")


def check_top_logprobs(k: int, max_k: int) -> None:
    """Raise InvalidRequestError for a k that the engine was not started for."""
    if isinstance(k, bool) or not isinstance(k, int) or k < -1:
        raise InvalidRequestError(f"top_logprobs is {k!r}; allowed are -1 and whole numbers from 0")
    if max_k != -1 and (k == -1 or k > max_k):
        size = "the whole vocabulary" if k == -1 else k
        raise InvalidRequestError(
            f"top_logprobs requests {size}, but the engine's max_logprobs is {max_k}; "
            f"start it with max_logprobs={k}, or request at most {max_k}"
        )


def check_sampling(sampling: Mapping[str, object]) -> None:
    """Raise InvalidRequestError for unknown names and values that can never work."""
    for name, value in sampling.items():
        if name not in SAMPLING_PARAMETERS:
            raise _unknown(name)
        if value is None:
            continue
        if name == "stop":
            _check_stop(value)
        elif name in _RANGES:
            low, high = _RANGES[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequestError(f"{name} is {value!r}; it must be a number")
            if not low <= value <= high or math.isinf(value):
                end = "" if math.isinf(high) else f" to {high}"
                raise InvalidRequestError(
                    f"{name} is {value!r}; allowed are numbers from {low}{end}"
                )


def _unknown(name: str) -> InvalidRequestError:
    if name in MANAGED_PARAMETERS:
        return InvalidRequestError(f"{name} is set by the backend and cannot be passed")
    near = suggestion(name, SAMPLING_PARAMETERS)
    return InvalidRequestError(f"unknown sampling parameter {name!r}{near}")


def _check_stop(stop: object) -> None:
    strings = [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list | tuple) or not all(isinstance(s, str) for s in strings):
        raise InvalidRequestError(f"stop is {stop!r}; it must be a string or a list of strings")
    if "" in strings:
        raise InvalidRequestError("a stop string is empty; it would stop before the first token")
