"""Methods over one part of an answer: where `MethodOptions.span` finds it.

A reply says more than its answer, such as the steps that lead to it. A token counts where it says
at least one character of the part.
"""

import asyncio
import re
from collections.abc import Callable, Sequence

import numpy as np

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import EvidenceError, UncertaintyError, reason
from uq_llm_integrations.methods.base import (
    Method,
    Value,
    evidence_method,
    needs_exact_statistics,
    values_of,
)
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.logprob import MALININ, TUTORIAL, entropies
from uq_llm_integrations.methods.options import FindSpan, MethodOptions, Span
from uq_llm_integrations.methods.token_alignment import token_spans, tokens_within
from uq_llm_integrations.records import Candidate, Floats


def needs_span(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require that the options say which part of an answer counts."""
    if options.span is not None:
        return None
    return "a part of the answer: MethodOptions(span=...), a pattern or a function that finds it"


async def span_tokens(context: Context) -> list[tuple[int, ...] | UncertaintyError]:
    """Return the tokens of each candidate's span, or why there are none."""
    return [await _tokens(context, one) for one in context.candidates]


async def _tokens(context: Context, candidate: Candidate) -> tuple[int, ...] | UncertaintyError:
    span = context.options.span
    assert span is not None  # needs_span
    try:
        part = await asyncio.to_thread(find_span, span, candidate.text)
        return tokens_within(await token_spans(context.backend, candidate), part)
    except UncertaintyError as error:
        return error


def find_span(span: str | FindSpan, text: str) -> Span:
    """Return where the part of a text is that a pattern or a function finds.

    Of a pattern it is the first match, or that match's group where the pattern has one. Raises
    EvidenceError where there is no such part, or it is empty.

    Example:
        >>> find_span("answer is ([a-z]+)", "The answer is six.")
        (14, 17)
    """
    found = _match(span, text) if isinstance(span, str) else _returned(span, text)
    if found is None:
        raise EvidenceError("the answer has no part that the span finds")
    start, end = found
    if not 0 <= start < end <= len(text):
        what = "is empty" if start == end else f"is no part of {len(text)} characters"
        raise EvidenceError(f"the span from {start} to {end} {what}")
    return start, end


def _match(pattern: str, text: str) -> Span | None:
    found = re.search(pattern, text)
    if found is None or found[found.re.groups] is None:
        return None
    return found.span(found.re.groups)


def _returned(find: FindSpan, text: str) -> Span | None:
    try:
        found = find(text)
        return None if found is None else (int(found[0]), int(found[1]))
    except Exception as error:  # the caller's own function, and so anything
        raise EvidenceError(f"the span cannot be found: {reason(error)}") from error


async def _over_spans(
    context: Context, rows: Sequence[Floats], formula: Callable[[Floats], float]
) -> list[Value]:
    """Return the formula's value of each candidate's tokens within its span."""

    def value(row: Floats, tokens: tuple[int, ...] | UncertaintyError) -> float:
        if isinstance(tokens, UncertaintyError):
            raise tokens
        return formula(row[list(tokens)])

    return values_of(value, zip(rows, await context.of(span_tokens), strict=True))


def _logprobs(context: Context) -> list[Floats]:
    return [one.trace.logprob for one in context.candidates]


@evidence_method(
    "span_sequence_probability",
    summary="Negative log-probability of the span's tokens, given all before them; nats.",
    reference=TUTORIAL,
    range=(0, np.inf),
    requirements=(needs_span,),
)
async def span_sequence_probability(context: Context) -> list[Value]:
    return await _over_spans(context, _logprobs(context), lambda row: -float(row.sum()))


@evidence_method(
    "span_perplexity",
    summary="Exponential of the mean negative log-probability of the span's tokens, at least 1.",
    reference=MALININ,
    range=(1, np.inf),
    requirements=(needs_span,),
)
async def span_perplexity(context: Context) -> list[Value]:
    return await _over_spans(context, _logprobs(context), lambda row: float(np.exp(-row.mean())))


@evidence_method(
    "span_mean_entropy",
    summary="Mean entropy of the distributions that the span's tokens were sampled from, in nats.",
    reference=MALININ,
    range=(0, np.inf),
    requirements=(needs_exact_statistics, needs_span),
)
async def span_mean_entropy(context: Context) -> list[Value]:
    rows = await context.of(entropies)
    return await _over_spans(context, rows, lambda row: float(row.mean()))


METHODS: tuple[Method, ...] = (span_sequence_probability, span_perplexity, span_mean_entropy)
