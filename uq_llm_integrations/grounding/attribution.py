"""From the passes over an answer to its support: of all sources, and of each of them.

The support is the pointwise mutual information of answer and sources, given the question; what a
source contributes is what is lost without it (leave-one-out). ContextCite
(https://arxiv.org/abs/2409.00729) fits a linear model of many random ablations to the same
log-probabilities; here each number is that of two passes, exactly, and for n sources there are at
most 2n + 2 of them.
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
from uq_llm_integrations.errors import HighUncertaintyError, InvalidRequestError, described
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

    Raises SourcesTooLongError before any pass, EvidenceError where the backend's rows cannot be
    true, and HighUncertaintyError where the answer is not grounded and that is what happens then.
    """
    if not isinstance(question, str):
        raise InvalidRequestError(f"the question is {described(question)}, not a text")
    started, (ids, text) = time.perf_counter(), await _tokens(backend, answer)
    passes = Ablations(backend, ids, sources, question, grounding, template)
    await passes.prepare()
    if ids:
        every = passes.every
        await passes.score([every, *map(passes.without, every), ()])
        await _score_alone(passes, grounding)
    texts = tuple(await backend.token_texts(ids))
    found = _attributed(passes, sources, grounding, text, texts)
    cost = replace(found.cost, seconds=time.perf_counter() - started)
    return _decided(replace(found, cost=cost), grounding)


async def _tokens(backend: Backend, answer: str | Ids) -> tuple[Ids, str]:
    """Return the tokens of an answer, and its text."""
    if isinstance(answer, str):
        ids = await encode_given(backend, answer, is_data=True) if answer else ()
        return ids, answer
    ids = tuple(token_ids("the answer", answer))
    return ids, await backend.decode(ids)


async def _score_alone(passes: Ablations, grounding: Grounding) -> None:
    """Score each source alone, too, where leaving one out explains too little of the support."""
    if _unexplained(passes) >= grounding.least_support:
        await passes.score((one,) for one in passes.every)


def _unexplained(passes: Ablations) -> float:
    """Return how much of the support no source is needed for by itself, in nats.

    Sources that say the same can each be left out, so that none contributes what all support. One
    source has all of it, and a source that speaks against the answer explains nothing.
    """
    contributions = [_total(_contribution(passes, one)) for one in passes.every]
    needed = math.fsum(max(one, 0.0) for one in contributions)
    return _total(_support(passes)) - needed if len(contributions) > 1 else 0.0


def _support(passes: Ablations) -> Floats:
    return passes.logprob(passes.every) - passes.logprob(())


def _contribution(passes: Ablations, index: int) -> Floats:
    return passes.logprob(passes.every) - passes.logprob(passes.without(index))


def _total(values: Floats) -> float:
    return math.fsum(values.tolist())


def _attributed(
    passes: Ablations,
    sources: Sequence[Source],
    grounding: Grounding,
    answer: str,
    tokens: tuple[str, ...],
) -> GroundedAnswer:
    """Return what the passes say, without a decision."""
    support = _support(passes) if tokens else None
    is_redundant = bool(tokens) and _unexplained(passes) >= grounding.least_support
    shares = tuple(
        _share(passes, index, one, grounding.least_support, is_redundant)
        for index, one in enumerate(sources if tokens else ())
    )
    best = max(shares, key=lambda one: one.strength, default=None)
    total = None if support is None else _total(support)
    without = _total(passes.logprob(())) if tokens else None
    return GroundedAnswer(
        answer=answer,
        tokens=tokens,
        support=total,
        by_token=() if support is None else tuple(support.tolist()),
        logprob=_total(passes.logprob(passes.every)) if tokens else None,
        logprob_without=without,
        sources=shares,
        main=best.index if best is not None and best.strength > 0 else None,
        is_redundant=is_redundant,
        is_grounded=None if total is None else total >= grounding.least_support,
        least_support=float(grounding.least_support),
        reason=_reason(total, without, len(sources), grounding.least_support),
        decision=Decision(),
        cost=_cost(passes),
    )


def _share(
    passes: Ablations, index: int, source: Source, least: float, is_redundant: bool
) -> SourceSupport:
    by_token = _contribution(passes, index)
    share = SourceSupport(index, source.name, _total(by_token), tuple(by_token.tolist()))
    if not is_redundant:
        return share
    alone = _total(passes.logprob((index,)) - passes.logprob(()))
    carries = alone >= least and alone - share.contribution >= least
    return replace(share, alone=alone, is_redundant=carries)


def _reason(support: float | None, without: float | None, sources: int, least: float) -> str | None:
    """Return why an answer is not grounded, None where it is."""
    if support is None or without is None:
        return NO_TOKENS
    if support >= least:
        return None
    if not sources:
        return "there are no sources"
    if support < 0:
        return f"the sources make the answer less probable, by {-support:.3g} nats"
    if -without < least:
        return (
            f"the model gives the answer without any source, too: its log-probability is "
            f"{without:.3g} then, so that no source could add more than {-without:.3g} nats"
        )
    return f"the sources add {support:.3g} nats to the answer's log-probability"


def _cost(passes: Ablations) -> GroundingCost:
    usage = passes.usage
    tokens = usage.prompt_tokens + usage.scored_tokens
    return GroundingCost(
        passes=usage.forward_passes,
        prompt_tokens=usage.prompt_tokens,
        scored_tokens=usage.scored_tokens,
        ratio=tokens / passes.generation_tokens,
        seconds=0.0,
    )


def _decided(found: GroundedAnswer, grounding: Grounding) -> GroundedAnswer:
    """Return the answer with what is decided about it; what is not known counts as not grounded."""
    if found.is_grounded:
        return found
    condition, action = grounding.condition, grounding.on_not_grounded
    if action == "abstain":
        decision = Decision("abstained", condition, True, grounding.abstention_text)
    else:
        decision = Decision("accepted", condition, True)
    found = replace(found, decision=decision)
    if action == "raise":
        raise HighUncertaintyError(
            f"{condition}: {found.reason}",
            text=found.answer,
            uncertainty={"grounding": found.to_dict()},
        )
    return found
