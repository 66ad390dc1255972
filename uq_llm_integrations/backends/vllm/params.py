"""From requests to vLLM's SamplingParams, and when the probe may watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uq_llm_integrations.backends.sampling_params import MASKING_PARAMETERS, PENALTIES
from uq_llm_integrations.backends.vllm.grammar import structured_outputs
from uq_llm_integrations.backends.vllm.launch import (
    REQUEST_KEY,
    SCORE_KEY,
    STOP_KEY,
    TOKENS_KEY,
)
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Request

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


def generation_params(
    request: Request,
    number: int,
    *,
    watched_as: str | None,
    keeps_tokens: bool = False,
    stop_token: int | None = None,
    fallback_k: int,
    whole: bool,
) -> SamplingParams:
    """Return the parameters of a request's sample of this number.

    Samples have seeds of their own, counted up from the request's. `watched_as` is the id under
    which the probe keeps the sample; without one, the top `fallback_k` are asked for to bound what
    the probe would have told. `keeps_tokens` says that the probe can keep the log-probabilities of
    the tokens drawn, which are then not asked of the engine. `stop_token` is what an early stop
    draws. `whole` asks for one output at the end, not one a step. Its text is then left to
    `output.text_of`, unless a stop string needs it on the way: vLLM would also look up the text of
    every log-probability.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    values = {name: value for name, value in request.sampling.items() if value is not None}
    if "seed" in values:
        values["seed"] += number
    extra: dict[str, Any] = dict(values.pop("extra_args", {}))
    if isinstance(values.get("structured_outputs"), Mapping):
        values["structured_outputs"] = structured_outputs(values["structured_outputs"])
    if whole and not values.get("stop"):
        values["detokenize"] = False
    k: int | None = request.top_logprobs
    if watched_as:
        extra[REQUEST_KEY] = watched_as
        if request.early_stop and stop_token is not None:
            rule = request.early_stop
            extra[STOP_KEY] = [rule.statistic, rule.window, rule.above, stop_token]
            values["stop_token_ids"] = [*values.get("stop_token_ids", ()), stop_token]
    elif k != -1:
        k = max(request.top_logprobs, fallback_k)
    if keeps_tokens and not k:
        k = None
    return SamplingParams(
        **values,
        logprobs=k,
        flat_logprobs=True,
        extra_args=extra,
        skip_clone=True,  # they are for this request alone
        output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.CUMULATIVE,
    )


def scoring_params(k: int, wanted: tuple[str, int] | None, *, reads_cache: bool) -> SamplingParams:
    """Return the parameters that score a prompt. vLLM always generates a token, which is unused.

    `wanted` asks the probe to keep, under a name, the statistics from some token on. With
    `reads_cache` the rows of cached tokens are uninitialised memory; they would break the
    detokenizer.
    """
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=k,
        flat_logprobs=True,
        detokenize=False,
        skip_reading_prefix_cache=not reads_cache,
        extra_args={SCORE_KEY: wanted} if wanted else None,
    )


def first_token_params(name: str, token_ids: list[int], k: int) -> SamplingParams:
    """Return the parameters that ask what stands first behind a prompt, for some tokens."""
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprobs=k,
        flat_logprobs=True,
        detokenize=False,
        extra_args={REQUEST_KEY: name, TOKENS_KEY: (f"{name}-tokens", token_ids)},
    )


def early_stop_token(llm: Any, request: Request) -> int | None:
    """Return the token that an early stop draws: one that the model does not draw by itself.

    A place of the vocabulary that no token has, else a special token that ends nothing.
    """
    if request.early_stop is None:
        return None
    tokenizer, size = llm.get_tokenizer(), llm.model_config.get_vocab_size()
    if size > len(tokenizer):
        return int(size - 1)
    taken = {tokenizer.eos_token_id, *(request.sampling.get("stop_token_ids") or ())}
    unused = [token for token in tokenizer.all_special_ids if token not in taken]
    if not unused:
        raise InvalidRequestError("an early stop needs a token that the model does not draw")
    return int(unused[-1])


def check_seed(request: Request, config: VllmConfig) -> None:
    """Raise InvalidRequestError where a seed could kill the engine, see `vllm_start`."""
    if (
        request.sampling.get("seed") is not None
        and config.device_config.device_type == "cpu"
        and config.scheduler_config.enable_chunked_prefill
    ):
        raise InvalidRequestError(
            "a seed together with chunked prefill can kill vLLM on the CPU; "
            "start the engine with enable_chunked_prefill=False or leave the seed out"
        )


def why_not_watched(request: Request, *, use_v2_model_runner: bool) -> str | None:
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
