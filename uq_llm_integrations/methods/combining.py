"""Scores that are made of other methods' scores, once those are known."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.base import Method, values_of
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.scoring import add_evidence_scores, score_candidate, score_of_value
from uq_llm_integrations.records import Candidate, Request, Result, Score


async def add_scores(
    result: Result,
    backend: MeteredBackend,
    request: Request,
    methods: Iterable[str],
    options: MethodOptions | None = None,
) -> Result:
    """Return the result with the scores of all methods that need more than a trace.

    Where a calibration makes some of them of others, the scores of these are in the result, too.
    """
    options = options or MethodOptions()
    named = {name: find_method(name) for name in methods}
    combined = {name: one for name, one in named.items() if one.combine is not None}
    parts = options.calibration.methods if combined and options.calibration else ()
    added = await add_evidence_scores(result, backend, request, (*named, *parts), options)
    if not combined:
        return added
    rows = zip(added.candidates, added.scores, strict=True)
    scores = (_combined(*row, combined, parts, options) for row in rows)
    return replace(added, scores=tuple(scores))


def _combined(
    candidate: Candidate,
    scores: Mapping[str, Score],
    methods: Mapping[str, Method],
    parts: Iterable[str],
    options: MethodOptions,
) -> Mapping[str, Score]:
    known = {**score_candidate(candidate, parts), **scores}
    made = {name: _score(one, known, candidate, options) for name, one in methods.items()}
    return known | made


def _score(
    method: Method, scores: Mapping[str, Score], candidate: Candidate, options: MethodOptions
) -> Score:
    assert method.combine is not None
    (value,) = values_of(method.combine, [(scores, options)])
    return score_of_value(method, value, candidate.trace)
