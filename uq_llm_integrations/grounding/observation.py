"""A grounding as its span, metrics and log record have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uq_llm_integrations.grounding.grounded_answer import GroundedAnswer
from uq_llm_integrations.grounding.grounding_options import Grounding, Source
from uq_llm_integrations.records import Candidate, Request, Result, TokenTrace, Usage


def as_request(sources: Sequence[Source], question: str, grounding: Grounding) -> Request:
    """Return what the model is given with all sources."""
    text = grounding.written([one.text for one in sources], question)
    return Request((), text=text, chat=grounding.chat_template)


def as_result(found: GroundedAnswer) -> Result:
    """Return the answer with what it cost and what was decided; it has no method's score."""
    usage = Usage()
    if cost := found.cost:
        usage = Usage(
            prompt_tokens=cost.prompt_tokens,
            scored_tokens=cost.scored_tokens,
            cached_tokens=cost.cached_tokens,
        )
    candidate = Candidate((), (), found.answer, TokenTrace(0, np.zeros(0)))
    return Result((candidate,), ({},), usage, found.decision)


def facts(found: GroundedAnswer) -> dict[str, float]:
    """Return the numbers that are no method's score, where they are known."""
    passes = None if found.cost is None else found.cost.passes
    known = {"support": found.support, "grounding_passes": passes}
    return {name: value for name, value in known.items() if value is not None}
