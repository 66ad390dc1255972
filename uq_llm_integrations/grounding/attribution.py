"""From the passes over an answer to its support: what each of its sources contributes.

What a source adds alone misses what it says only together with others, and what is lost without it
misses what others say, too: of two that say the same, each can be left out. The mean of both is the
source's Shapley value where sources interact in pairs at most (a 2-additive game, Grabisch 1997,
https://doi.org/10.1016/S0165-0114(97)00168-1), and sources that say the same share what they add.
ContextCite (https://arxiv.org/abs/2409.00729) fits a linear model of many random ablations to the
same log-probabilities; here n sources take at most 2n + 2 passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.prompts import encode_given
from uq_llm_integrations.backends.sampling_values import token_ids
from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.grounding.ablation import Ablations, Ids
from uq_llm_integrations.grounding.grounded_answer import (
    GroundedAnswer,
    GroundingCost,
    SourceSupport,
)
from uq_llm_integrations.grounding.grounding_options import Grounding, Source
from uq_llm_integrations.records import Decision, Floats

NO_TOKENS = "the answer has no tokens"


async def ground_answer(
    backend: Backend,
    answer: str | Ids,
    sources: Sequence[Source],
    question: str,
    grounding: Grounding,
    template: Mapping[str, Any],
) -> GroundedAnswer:
    """Return how far a text, or token ids, rest on sources; `template` has values for the chat's.

    Raises SourcesTooLongError before any pass, and EvidenceError where the backend's rows cannot be
    true. `check_grounded` raises for an answer that is not grounded.
    """
    started, (ids, text) = time.perf_counter(), await _tokens(backend, answer)
    passes = Ablations(backend, ids, sources, question, grounding, template)
    await passes.prepare()
    if ids:
        await passes.score()
    texts = tuple(await backend.token_texts(ids))
    found = _attributed(passes, sources, grounding, text, texts)
    cost = _cost(passes, time.perf_counter() - started)
    return _decided(replace(found, cost=cost), grounding)


async def _tokens(backend: Backend, answer: str | Ids) -> tuple[Ids, str]:
    """Return the tokens of an answer, and its text."""
    if isinstance(answer, str):
        ids = await encode_given(backend, answer, is_data=True) if answer else ()
        return ids, answer
    ids = tuple(token_ids("the answer", answer))
    return ids, await backend.decode(ids)


def _attributed(
    passes: Ablations,
    sources: Sequence[Source],
    grounding: Grounding,
    answer: str,
    tokens: tuple[str, ...],
) -> GroundedAnswer:
    """Return what the passes say, without a decision and the cost."""
    least = float(grounding.least_support)
    if not tokens:
        return GroundedAnswer.unknown(answer, NO_TOKENS, least)
    every, none = passes.logprob(passes.every), passes.logprob(())
    shares = tuple(_share(passes, index, one.name) for index, one in enumerate(sources))
    best = max(shares, key=lambda one: one.contribution, default=None)
    support = 0.0 if best is None else best.contribution
    is_grounded = best is not None and support >= least
    return GroundedAnswer(
        answer=answer,
        tokens=tokens,
        support=support,
        logprob=_total(every),
        logprob_without=_total(none),
        by_token=tuple((every - none).tolist()),
        sources=shares,
        main=best.index if best is not None and support > 0 else None,
        is_grounded=is_grounded,
        least_support=least,
        reason=None if is_grounded else _reason(support, _total(none), len(shares), least),
        decision=Decision(),
        cost=None,
    )


def _share(passes: Ablations, index: int, name: str | None) -> SourceSupport:
    alone = passes.logprob((index,)) - passes.logprob(())
    loss = passes.logprob(passes.every) - passes.logprob(passes.without(index))
    by_token = (alone + loss) / 2
    return SourceSupport(
        index, name, _total(by_token), _total(alone), _total(loss), tuple(by_token.tolist())
    )


def _total(values: Floats) -> float:
    return math.fsum(values.tolist())


def _reason(support: float, without: float, sources: int, least: float) -> str:
    """Return why an answer is not grounded."""
    if not sources:
        return "there are no sources"
    if support < 0:
        return f"each source makes the answer less probable, by {-support:.3g} nats or more"
    if -without < least:
        return (
            "the model gives the answer without any source, too, with a log-probability of "
            f"{without:.3g}"
        )
    return f"no source adds more than {support:.3g} nats to the answer's log-probability"


def _cost(passes: Ablations, seconds: float) -> GroundingCost:
    usage = passes.usage
    tokens = usage.prompt_tokens + usage.scored_tokens
    return GroundingCost(
        passes=usage.forward_passes,
        prompt_tokens=usage.prompt_tokens,
        scored_tokens=usage.scored_tokens,
        ratio=tokens / passes.generation_tokens,
        seconds=seconds,
        cached_tokens=usage.cached_tokens,
    )


def _decided(found: GroundedAnswer, grounding: Grounding) -> GroundedAnswer:
    """Return the answer with what is decided about it; what is not known counts as not grounded."""
    if found.is_grounded:
        return found
    decision = Decision("accepted", grounding.condition, True)
    if grounding.on_not_grounded == "abstain":
        decision = replace(decision, action="abstained", text=grounding.abstention_text)
    return replace(found, decision=decision)


def check_grounded(found: GroundedAnswer, grounding: Grounding) -> None:
    """Raise HighUncertaintyError for an answer that is not, where that is what happens then."""
    if grounding.on_not_grounded == "raise" and not found.is_grounded:
        raise HighUncertaintyError(
            f"{grounding.condition}: {found.reason}",
            text=found.answer,
            uncertainty={"grounding": found.to_dict()},
        )
