"""Scores of methods that need more than a trace: what they need is gathered, then estimated."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods import (  # noqa: F401  # they provide
    alternatives,
    answers,
    claims,
    internals,
    prompting,
    sampling,
)
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.context import Gathering
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.score import score_evidence
from uq_llm_integrations.methods.wishes import Asking, Generate, Inspect, Rescore, Together
from uq_llm_integrations.records import Candidate, Request, Result, Score, Usage


def assessed(result: Result, request: Request, methods: Sequence[str]) -> Asking[Result]:
    """Return the result with the scores of all methods that need evidence, and what it cost."""
    wanted = {name: find_method(name) for name in methods if find_method(name).evidence}
    alive = [i for i, one in enumerate(result.candidates) if one.token_ids and not one.error]
    if not wanted or not alive:
        return _scored(result, {name: [] for name in wanted}, alive)
    started, ledger = time.perf_counter(), Ledger()
    candidates = [result.candidates[i] for i in alive]
    names = frozenset(name for method in wanted.values() for name in method.evidence)
    gathering = Gathering(request, candidates, request.method_options or MethodOptions(), names)
    scores = {}
    for name, method in wanted.items():
        scores[name] = yield from ledger.counted(_scores(gathering, method))
    usage = replace(ledger.usage, seconds=time.perf_counter() - started)
    return replace(_scored(result, scores, alive), usage=result.usage + usage)


def _scores(gathering: Gathering, method: Method) -> Asking[list[Score]]:
    gathered = {}
    try:
        for name in method.evidence:
            gathered[name] = yield from gathering.get(name)
    except UncertaintyError as error:
        return [Score(method.name, reason=str(error)) for _ in gathering.candidates]
    source = gathering.source(method.evidence)
    return [
        replace(score_evidence(one, method, each), source=source)
        for one, each in zip(gathering.candidates, _rows(gathered, gathering), strict=True)
    ]


def _rows(gathered: dict[str, list[Any]], gathering: Gathering) -> list[dict[str, Any]]:
    method_options = {"density": gathering.method_options.density}
    count = range(len(gathering.candidates))
    return [{name: values[i] for name, values in gathered.items()} | method_options for i in count]


def _scored(result: Result, scores: dict[str, list[Score]], alive: list[int]) -> Result:
    rows = [dict(row) for row in result.scores]
    for name, each in scores.items():
        nothing = Score(find_method(name).name, reason="there are no tokens to score")
        for row in rows:
            row[name] = nothing
        for i, score in zip(alive, each, strict=bool(each)):
            rows[i][name] = score
    return replace(result, scores=tuple(rows))


class Ledger:
    """Counts what wishes cost as they are granted."""

    def __init__(self) -> None:
        self.usage = Usage()

    def counted(self, asking: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run a generator of wishes and count the answers."""
        answer: Any = None
        error: UncertaintyError | None = None
        while True:
            try:
                wish = asking.send(answer) if error is None else asking.throw(error)
            except StopIteration as stop:
                return stop.value
            if isinstance(wish, Together):
                wish = Together(tuple(map(self.counted, wish.parts)))
            answer, error = None, None
            try:
                answer = yield wish
            except UncertaintyError as raised:
                error = raised
            else:
                self.usage += _cost(wish, answer)


def _cost(wish: Any, answer: Any) -> Usage:
    match wish:
        case Generate():
            return _cost_of_generating(answer)
        case Rescore(prompt_ids):
            scored = sum(len(one.token_ids) for one in answer)
            cached = sum(one.cached_tokens for one in answer)
            return Usage(len(prompt_ids), 0, scored, cached, forward_passes=1)
        case Inspect(texts):
            return Usage(scored_tokens=sum(map(len, texts)), forward_passes=1)
    return Usage()


def _cost_of_generating(candidates: Sequence[Candidate]) -> Usage:
    tokens = [len(one.token_ids) for one in candidates]
    cached = next((one.cached_tokens for one in candidates if not one.error), 0)
    prompt = len(candidates[0].prompt_ids)
    return Usage(prompt, sum(tokens), 0, cached, forward_passes=max(tokens, default=0))
