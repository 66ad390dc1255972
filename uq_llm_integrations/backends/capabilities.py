"""What a backend can serve, and checks of a request that need no engine."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from uq_llm_integrations.backends.sampling_values import (
    MANAGED_PARAMETERS as MANAGED_PARAMETERS,  # beside the checks of what they are
)
from uq_llm_integrations.backends.sampling_values import SAMPLING_PARAMETERS as SAMPLING_PARAMETERS
from uq_llm_integrations.backends.sampling_values import check_sampling, token_ids
from uq_llm_integrations.errors import (
    ConfigurationError,
    EmptyPromptError,
    InvalidRequestError,
    PromptTooLongError,
    described,
)
from uq_llm_integrations.records import JsonObject, Request, StopRule
from uq_llm_integrations.stop_rule import EarlyStop

MAX_N = 128
"""The most candidates that one request may ask for, unless the backend is given another cap."""

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

_OF_TOKENS = frozenset({"stop_token_ids", "allowed_token_ids", "logit_bias"})


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


def check_request(request: Request, capabilities: Capabilities) -> Request:
    """Return the request with values of exactly the kinds that they must have.

    Its `max_tokens` is what the context leaves at most, and all of it where none is given. Raises
    InvalidRequestError for a request that no engine with these capabilities can serve.
    """
    prompt_ids = _checked_prompt(request.prompt_ids, capabilities)
    if request.n != 1:
        check_n(request.n, capabilities.max_n)
    if request.top_logprobs != 0:
        check_top_logprobs(request.top_logprobs, capabilities.max_top_logprobs)
    sampling = check_sampling(request.sampling)
    for name in _OF_TOKENS & sampling.keys():
        check_ids(sampling[name] or (), capabilities.vocabulary_size, f" of {name}")
    if request.early_stop:
        check_early_stop(request.early_stop, sampling)
    room = capabilities.context_length and capabilities.context_length - len(prompt_ids)
    return replace(request, prompt_ids=prompt_ids, sampling=_within(sampling, room))


def most_tokens(request: Request, context_length: int | None) -> int | None:
    """Return the most tokens that a sample may have, None where there is no known limit.

    It is the request's `max_tokens`, or the room that its prompt leaves in the context, if less.
    """
    room = context_length and context_length - len(request.prompt_ids)
    return _least(request.sampling.get("max_tokens"), room)


def _checked_prompt(prompt_ids: Sequence[int], capabilities: Capabilities) -> tuple[int, ...]:
    ids, context_length = tuple(token_ids("the prompt", prompt_ids)), capabilities.context_length
    if not ids:
        raise EmptyPromptError
    if context_length is not None and len(ids) >= context_length:
        raise PromptTooLongError(len(ids), context_length)
    if (size := capabilities.vocabulary_size) is not None and max(ids) >= size:
        check_ids(ids, size)
    return ids


def _within(sampling: JsonObject, room: int | None) -> JsonObject:
    """Return sampling parameters of samples that fit into so much room."""
    given, least = sampling.get("max_tokens"), sampling.get("min_tokens")
    if least and given is not None and least > given:
        raise InvalidRequestError(
            f"min_tokens is {least}; allowed are whole numbers from 0 to max_tokens, {given}"
        )
    most = _least(given, room)
    if most is None:
        return sampling
    return {**sampling, "max_tokens": most} | ({"min_tokens": min(least, most)} if least else {})


def _least(*limits: int | None) -> int | None:
    return min((one for one in limits if one is not None), default=None)


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


def check_ids(tokens: Iterable[int], size: int | None, where: str = "") -> None:
    """Raise InvalidRequestError for a token that a vocabulary of this size does not have."""
    ids = tuple(tokens)
    if size is None or not ids or (min(ids) >= 0 and max(ids) < size):
        return
    wrong = next(token for token in ids if not 0 <= token < size)
    raise InvalidRequestError(f"there is no token {wrong}{where}; allowed are 0 to {size - 1}")


def check_early_stop(rule: StopRule, sampling: Mapping[str, object]) -> None:
    """Raise InvalidRequestError for a rule that can never work beside these parameters."""
    if not isinstance(rule, EarlyStop):
        raise InvalidRequestError(f"early_stop is {described(rule)}; it must be an EarlyStop")
    for name in ("structured_outputs", "min_tokens"):
        if sampling.get(name):
            raise InvalidRequestError(f"an early stop cannot end a sample under {name}")


def check_limits(max_n: int, deadline: float = 1.0) -> None:
    """Raise ConfigurationError for a `max_n` or a `deadline` that no backend can keep to."""
    if isinstance(max_n, bool) or not isinstance(max_n, int) or max_n < 1:
        raise ConfigurationError(f"max_n is {described(max_n)}; allowed are whole numbers from 1")
    is_number = isinstance(deadline, int | float) and not isinstance(deadline, bool)
    if not is_number or not 0 < deadline <= sys.float_info.max:
        raise ConfigurationError(f"deadline is {described(deadline)}; allowed are seconds above 0")


def check_n(n: int, max_n: int) -> None:
    """Raise InvalidRequestError unless 1 <= n <= max_n."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= max_n:
        raise InvalidRequestError(
            f"n is {described(n)}; allowed are whole numbers from 1 to {max_n}"
        )


def check_top_logprobs(k: int, max_k: int) -> None:
    """Raise InvalidRequestError for a k that the engine was not started for."""
    if isinstance(k, bool) or not isinstance(k, int) or k < -1:
        raise InvalidRequestError(
            f"top_logprobs is {described(k)}; allowed are -1 and whole numbers from 0"
        )
    if max_k != -1 and (k == -1 or k > max_k):
        size = "the whole vocabulary" if k == -1 else k
        raise InvalidRequestError(
            f"top_logprobs requests {size}, but the engine's max_logprobs is {max_k}; "
            f"start it with max_logprobs={k}, or request at most {max_k}"
        )
