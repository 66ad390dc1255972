"""Scores of truncated text: a slice of what is known, or one forward pass for what is not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.decoding.judge import judge
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Candidate, Score, Usage
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS, check_methods

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TruncatedScore:
    """The scores of a truncated text.

    `first_difference` is the place of the first token at which the text, tokenised afresh, differs
    from the generated ids, which are what is scored; None where it does not. `unscored_text` is
    the part of a token that a cut within it left over; with healing it is scored as well.
    """

    candidate: Candidate
    scores: Mapping[str, Score]
    usage: Usage
    is_sliced: bool
    unscored_text: str = ""
    first_difference: int | None = None


def truncated(candidate: Candidate, tokens: int) -> Candidate:
    """Return the first tokens of a candidate with the trace that they were generated with.

    Its text is left to who can decode; `score_truncated_sequence` does.
    """
    if not 0 <= tokens <= len(candidate.token_ids):
        raise ConfigurationError(
            f"cannot keep {tokens} tokens; the candidate has {len(candidate.token_ids)}"
        )
    if tokens == len(candidate.token_ids):
        return candidate
    return replace(
        candidate,
        token_ids=candidate.token_ids[:tokens],
        trace=candidate.trace[:tokens],
        finish_reason=None,
        stop_reason=None,
    )


async def ascore_truncated_sequence(
    backend: Backend,
    prompt_ids: Ids,
    text: str | Ids,
    generated: Sequence[Candidate] = (),
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    heal: bool = False,
) -> TruncatedScore:
    """Score a text, or token ids, behind a prompt. See `score_truncated_sequence`."""
    scored = await ascore_truncated_sequences(
        backend, prompt_ids, [text], generated, methods, heal=heal
    )
    return scored[0]


def score_truncated_sequence(
    backend: Backend,
    prompt_ids: Ids,
    text: str | Ids,
    generated: Sequence[Candidate] = (),
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    heal: bool = False,
) -> TruncatedScore:
    """Score a text, or token ids, behind a prompt, blocking.

    Where it is the beginning of one of the `generated` candidates, their trace is sliced and the
    model is not asked. All other text is scored by teacher forcing, behind the cached prompt.

    A cut within a token keeps the whole tokens before it. What is left over of the text is told
    and not scored, or, with `heal`, tokenised by itself and scored by a pass of its own.
    """
    return backend.run(
        ascore_truncated_sequence(backend, prompt_ids, text, generated, methods, heal=heal)
    )


async def ascore_truncated_sequences(
    backend: Backend,
    prompt_ids: Ids,
    texts: Sequence[str | Ids],
    generated: Sequence[Candidate] = (),
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    heal: bool = False,
) -> list[TruncatedScore]:
    """Score several texts behind one prompt; those that need a pass share one batch."""
    check_methods(methods)
    started = time.perf_counter()
    own = [one for one in generated if one.prompt_ids == tuple(prompt_ids)]
    cuts = [await _cut(backend, tuple(prompt_ids), text, own) for text in texts]
    foreign = [cut for cut in cuts if cut.generated is None]
    passed = iter(
        await backend.score_all(tuple(prompt_ids), [cut.ids for cut in foreign]) if foreign else []
    )
    found = []
    for cut in cuts:
        if cut.generated is None:
            candidate, passes = next(passed), 1
        else:
            candidate, passes = await _sliced(backend, cut, cut.generated), 0
            if heal and cut.rest:
                candidate, passes = await _healed(backend, cut, candidate), 1
        found.append(_scored(candidate, cut, methods, passes, started, healed=heal))
    return found


@dataclass(frozen=True, eq=False)
class _Cut:
    ids: Ids
    generated: Candidate | None
    rest: str = ""
    fresh: Ids | None = None
    """The text tokenised afresh."""


async def _cut(
    backend: Backend, prompt_ids: Ids, text: str | Ids, generated: Sequence[Candidate]
) -> _Cut:
    if not isinstance(text, str):
        ids = tuple(text)
        source = (one for one in generated if one.token_ids[: len(ids)] == ids)
        return _Cut(ids, next(source, None))
    fresh = await backend.encode_continuation(text) if text else ()
    for one in generated:
        pieces = await backend.token_texts(one.token_ids)
        if "".join(pieces).startswith(text):
            tokens, rest = _whole_tokens(pieces, text)
            return _Cut(one.token_ids[:tokens], one, rest, fresh)
    return _Cut(fresh, None)


def _whole_tokens(pieces: Sequence[str], text: str) -> tuple[int, str]:
    """Return how many tokens lie within the text, and what of the text is left over.

    The bytes of a character that lies beyond the cut add no text yet; they stay outside.
    """
    if len(text) == sum(map(len, pieces)):
        return len(pieces), ""
    tokens, length, end = 0, 0, 0
    for place, piece in enumerate(pieces, 1):
        end += len(piece)
        if end > len(text):
            break
        if piece:
            tokens, length = place, end
    return tokens, text[length:]


async def _sliced(backend: Backend, cut: _Cut, generated: Candidate) -> Candidate:
    candidate = truncated(generated, len(cut.ids))
    if candidate is generated:
        return candidate
    return replace(candidate, text="".join(await backend.token_texts(candidate.token_ids)))


async def _healed(backend: Backend, cut: _Cut, candidate: Candidate) -> Candidate:
    rest = await backend.encode_continuation(cut.rest)
    tail = await backend.score(candidate.prompt_ids + candidate.token_ids, rest)
    return replace(
        candidate,
        token_ids=candidate.token_ids + rest,
        text=candidate.text + cut.rest,
        trace=candidate.trace.joined(tail.trace),
    )


def _scored(
    candidate: Candidate,
    cut: _Cut,
    methods: Sequence[str],
    passes: int,
    started: float,
    *,
    healed: bool,
) -> TruncatedScore:
    result = judge([candidate], methods, time.perf_counter() - started)
    known = len(cut.ids) if cut.generated is not None else 0
    usage = replace(
        result.usage,
        generated_tokens=0,
        scored_tokens=len(candidate.token_ids) - known,
        saved_tokens=known,
        forward_passes=passes,
    )
    return TruncatedScore(
        candidate=result.candidate,
        scores=result.scores[0],
        usage=usage,
        is_sliced=passes == 0,
        unscored_text="" if healed else cut.rest,
        first_difference=_first_difference(cut),
    )


def _first_difference(cut: _Cut) -> int | None:
    if cut.fresh is None or cut.fresh[: len(cut.ids)] == cut.ids:
        return None
    pairs = zip(cut.fresh, cut.ids, strict=False)
    shorter = min(len(cut.fresh), len(cut.ids))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)
