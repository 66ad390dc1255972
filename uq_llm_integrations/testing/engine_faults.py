"""What can happen to one call of a backend, and each kind of it by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any, Literal

import numpy as np

from uq_llm_integrations.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineLostError,
    EngineTimeoutError,
)
from uq_llm_integrations.records import Candidate, TokenTrace

When = Literal["before", "during", "after"]

Array = np.ndarray


@dataclass(frozen=True)
class EngineFault:
    """What happens to one call of a backend, before its work, during it or after it.

    During a stream is before its piece number `at`; after it, behind its last piece.

    Example:
        >>> EngineFault("out of memory", error=EngineError).when
        'before'
    """

    name: str
    when: When = "before"
    at: int = 1
    error: Callable[[str], BaseException] | None = None
    """Makes what is raised, of a message."""
    hangs: bool = False
    """Whether the call never ends by itself."""
    token_delay: float = 0.0
    """Seconds before each piece of a stream, and before any other answer."""
    change: Callable[[Candidate], Candidate] | None = None
    """What becomes of each candidate, and of each piece of a stream, given as a candidate."""
    count: Callable[[list[Candidate]], list[Candidate]] | None = None
    """What becomes of the list of all candidates."""
    ends: bool = False
    """Whether a stream ends there as if it were whole."""
    loses: bool = False
    """Whether the piece number `at` of a stream is left out."""
    action: Callable[[], object] | None = None
    """What is done besides: a signal that is sent, a process that is forked, ..."""


def changed_trace(change: Callable[[TokenTrace], TokenTrace]) -> Callable[[Candidate], Candidate]:
    """Return what changes a candidate's trace, for `EngineFault.change`."""
    return lambda candidate: replace(candidate, trace=change(candidate.trace))


def changed_rows(change: Callable[[Array], Array]) -> Callable[[Candidate], Candidate]:
    """Return what changes every array of a trace, over its T tokens, for `EngineFault.change`."""

    def whole(trace: TokenTrace) -> TokenTrace:
        given = {one.name: getattr(trace, one.name) for one in fields(trace)}
        arrays: dict[str, Any] = {
            name: change(one) for name, one in given.items() if isinstance(one, np.ndarray)
        }
        return replace(trace, **arrays)

    return changed_trace(whole)


def _fails(
    error: Callable[[str], BaseException], when: When = "before"
) -> Callable[[Random, str], EngineFault]:
    return lambda random, name: EngineFault(name, when, random.randrange(1, 8), error)


def _hangs(when: When) -> Callable[[Random, str], EngineFault]:
    return lambda random, name: EngineFault(name, when, random.randrange(1, 8), hangs=True)


def _changes(change: Callable[[Candidate], Candidate]) -> Callable[[Random, str], EngineFault]:
    return lambda random, name: EngineFault(name, change=change)


def _counts(
    count: Callable[[list[Candidate]], list[Candidate]],
) -> Callable[[Random, str], EngineFault]:
    return lambda random, name: EngineFault(name, count=count)


def _filled(value: float) -> Callable[[Random, str], EngineFault]:
    """Put a value into one row of one column, of those that are numbers."""

    def make(random: Random, name: str) -> EngineFault:
        column = random.choice(["logprob", "entropy", "varentropy", "root_sum"])
        place = random.random()

        def change(trace: TokenTrace) -> TokenTrace:
            found = getattr(trace, column)
            if found is None or not len(found):
                return trace
            changed = np.array(found, np.float64)
            changed[int(place * len(changed))] = value
            columns: dict[str, Any] = {column: changed}
            return replace(trace, **columns)

        return EngineFault(name, change=changed_trace(change))

    return make


def _top(change: Callable[[TokenTrace], Mapping[str, Any]]) -> Callable[[Candidate], Candidate]:
    """Return what changes the top log-probabilities, made up where there are none."""

    def whole(candidate: Candidate) -> Candidate:
        trace = candidate.trace
        if trace.top_ids is None:
            own = np.array(candidate.token_ids, np.int64).reshape(-1, 1)
            trace = replace(trace, top_ids=own, top_logprobs=trace.logprob.reshape(-1, 1))
        return replace(candidate, trace=replace(trace, **change(trace)))

    return whole


def _one_more(trace: TokenTrace) -> Mapping[str, Array]:
    assert trace.top_ids is not None
    return {"top_ids": np.concatenate([trace.top_ids, trace.top_ids[:, -1:]], axis=1)}


def _doubled_top(trace: TokenTrace) -> Mapping[str, Array]:
    assert trace.top_ids is not None and trace.top_logprobs is not None
    ids, top = trace.top_ids, trace.top_logprobs
    return {"top_ids": np.tile(ids, 2), "top_logprobs": np.tile(top, 2)}


def _other_top(trace: TokenTrace) -> Mapping[str, Array]:
    assert trace.top_logprobs is not None
    return {"top_logprobs": trace.top_logprobs - 1.0}


def _emptied(candidate: Candidate) -> Candidate:
    return replace(candidate, token_ids=(), text="", trace=candidate.trace[:0])


def _cut_in_character(candidate: Candidate) -> Candidate:
    """End within a character of several bytes, of which the text shows nothing."""
    return replace(
        candidate,
        token_ids=(*candidate.token_ids, 0xE6),
        trace=candidate.trace.joined(candidate.trace[:1]),
    )


def _longer(candidate: Candidate) -> Candidate:
    return replace(candidate, token_ids=(*candidate.token_ids, 65))


_MAKERS: Mapping[str, Callable[[Random, str], EngineFault]] = {
    "dies before": _fails(EngineDeadError),
    "dies during": _fails(EngineDeadError, "during"),
    "dies after": _fails(EngineDeadError, "after"),
    "is lost": _fails(EngineLostError),
    "is late": _fails(EngineTimeoutError, "during"),
    "is busy": _fails(EngineBusyError),
    "out of memory": _fails(lambda name: EngineError(f"vLLM failed: CUDA {name}"), "during"),
    "truncated stream": lambda random, name: EngineFault(
        name, "during", random.randrange(0, 8), ends=True
    ),
    "lost piece": lambda random, name: EngineFault(
        name, "during", random.randrange(0, 8), loses=True
    ),
    "hangs before": _hangs("before"),
    "hangs during": _hangs("during"),
    "slow drip": lambda random, name: EngineFault(name, token_delay=random.uniform(0.0, 0.005)),
    "NaN rows": _filled(float("nan")),
    "infinite rows": _filled(float("inf")),
    "impossible rows": _filled(1e9),
    "missing rows": _changes(changed_rows(lambda rows: rows[:-1])),
    "doubled rows": _changes(changed_rows(lambda rows: rows.repeat(2, axis=0))),
    "one row more": _changes(changed_rows(lambda rows: np.concatenate([rows, rows[-1:]]))),
    "reordered rows": _changes(changed_rows(lambda rows: rows[::-1])),
    "rows of another type": _changes(changed_rows(lambda rows: rows.astype(object))),
    "no rows": _changes(changed_rows(lambda rows: rows[:0])),
    "k+1 top log-probabilities": _changes(_top(_one_more)),
    "doubled top log-probabilities": _changes(_top(_doubled_top)),
    "top log-probabilities of other tokens": _changes(_top(_other_top)),
    "wrong lengths": _changes(_longer),
    "empty answer": _changes(_emptied),
    "broken UTF-8": _changes(_cut_in_character),
    "an answer to another prompt": _changes(lambda one: replace(one, prompt_ids=(1, 2, 3))),
    "too few candidates": _counts(lambda found: found[:-1]),
    "too many candidates": _counts(lambda found: [*found, *found]),
}


def _named(name: str) -> Callable[[Random], EngineFault]:
    return lambda random: _MAKERS[name](random, name)


ENGINE_FAULTS: Mapping[str, Callable[[Random], EngineFault]] = {
    name: _named(name) for name in _MAKERS
}
"""Kinds of faults of an engine by their names; each makes a fault by a random generator.

Example:
    >>> from random import Random
    >>> ENGINE_FAULTS["dies during"](Random(1)).when
    'during'
"""
