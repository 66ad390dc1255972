"""Scores of truncated text: a slice of what is known, or one forward pass for what is not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.prompts import encode_given
from uq_llm_integrations.backends.row_checks import sound_candidate
from uq_llm_integrations.backends.sampling_values import token_ids
from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.errors import (
    ConfigurationError,
    HighUncertaintyError,
    InvalidRequestError,
    described,
)
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, check_available
from uq_llm_integrations.records import Candidate, Decision, Request, Result, Score, Usage
from uq_llm_integrations.strategies.abstain import Policy
from uq_llm_integrations.strategies.base import Run, Strategy
from uq_llm_integrations.strategies.conditions import check_condition
from uq_llm_integrations.strategies.results import scored_result

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TruncatedScore:
    """The scores of a truncated text, and what was decided about it.

    `first_difference` is the index of the first token at which the text, tokenised afresh, differs
    from the generated ids, which are what is scored; None where it does not. `unscored_text` is
    the part of a token that a cut within it left over; with healing it is scored as well.
    """

    candidate: Candidate
    scores: Mapping[str, Score]
    usage: Usage
    is_sliced: bool
    decision: Decision
    unscored_text: str = ""
    first_difference: int | None = None


def truncated(candidate: Candidate, tokens: int) -> Candidate:
    """Return the first tokens of a candidate with the trace that they were generated with.

    Its text stays that of the whole; `score_truncated_sequence`, which can decode, shortens it.
    Raises ConfigurationError where the candidate has fewer tokens.

    Example:
        >>> whole = UncertaintyModel(ScriptedBackend(["Paris"])).generate("Capital?").candidate
        >>> len(truncated(whole, 3).trace)
        3
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


def score_truncated_sequence(
    backend: Backend,
    prompt_ids: Ids,
    text: str | Ids,
    generated: Sequence[Candidate] = (),
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    heal: bool = False,
    options: MethodOptions | None = None,
) -> TruncatedScore:
    """Score a text, or token ids, behind a prompt, blocking.

    Where it is the beginning of one of the `generated` candidates, their trace is sliced and no
    forward pass is made. All other text is scored by teacher forcing, behind the cached prompt.

    A cut within a token keeps the whole tokens before it. What is left over of the text is
    returned and not scored, or, with `heal`, tokenised by itself and scored by a pass of its own.

    Example:
        half = score_truncated_sequence(backend, prompt_ids, "The capital of Fr", [candidate])
        half.scores["perplexity"].value
    """
    scoring = score_truncated_texts(
        backend, Request(tuple(prompt_ids)), [text], generated, methods, options, heal=heal
    )
    return backend.run(scoring)[0]


async def score_truncated_texts(
    backend: Backend,
    request: Request,
    texts: Sequence[str | Ids],
    generated: Sequence[Candidate] = (),
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions | None = None,
    *,
    heal: bool = False,
    policy: Policy | None = None,
) -> list[TruncatedScore]:
    """Score several texts behind the request's prompt; those that need a pass share one batch.

    See `score_truncated_sequence`. Each is decided about by the policy; HighUncertaintyError has
    the results of all texts in `completed`.

    Example:
        scores = await score_truncated_texts(backend, request, ["Par", "Paris"], [candidate])
    """
    _check_given(texts, generated)
    policy = policy or Policy()
    methods = tuple(dict.fromkeys([*methods, *policy.methods]))
    check_available(methods, backend.capabilities, options)
    if policy.condition is not None:
        check_condition(policy.condition, 1, backend.capabilities, options or MethodOptions())
    started = time.perf_counter()
    own = [
        (one, await candidate_texts(backend, one))
        for one in generated
        if one.prompt_ids == request.prompt_ids
    ]
    is_data = request.is_data
    cuts = [replace(await _cut(backend, text, own, is_data), heal=heal) for text in texts]
    foreign = [cut.ids for cut in cuts if cut.generated is None]
    passes = iter(await _passes(backend, request, foreign))
    healed = [_healed(backend, cut, is_data) for cut in cuts if cut.is_healed]
    heals = iter(await together(healed))
    found = []
    for cut in cuts:
        if cut.is_healed:
            candidate = next(heals)
        else:
            candidate = next(passes) if cut.generated is None else cut.slice()
        metered = MeteredBackend(backend, is_data=is_data)
        run = Run(metered, request, methods, options or MethodOptions())
        candidate = sound_candidate(candidate)  # also a slice of what somebody has given
        result = scored_result([candidate], methods, time.perf_counter() - started, request)
        found.append(run.assess(_counted(result, cut)))
    decided = _decided(policy, await together(found))
    return [_truncated_score(result, cut) for result, cut in zip(decided, cuts, strict=True)]


def joined_result(scored: Sequence[TruncatedScore]) -> Result | None:
    """Return several texts behind one prompt as one result, as a span has it; None without any.

    It has the scores of a single text, what all have cost, and the first decision that one of them
    is uncertain.
    """
    if not scored:
        return None
    usage = sum((one.usage for one in scored), Usage())
    decisions = [one.decision for one in scored]
    decision = next((one for one in decisions if one.is_uncertain), decisions[0])
    scores = [one.scores if len(scored) == 1 else {} for one in scored]
    return Result(tuple(one.candidate for one in scored), tuple(scores), usage, decision)


def _check_given(texts: object, generated: object) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InvalidRequestError(
            f"the texts are {described(texts)}; give a list of texts or token ids"
        )
    if not isinstance(generated, Sequence) or not all(isinstance(g, Candidate) for g in generated):
        raise InvalidRequestError(f"generated is {described(generated)}; give a list of candidates")


async def _passes(backend: Backend, request: Request, texts: Sequence[Ids]) -> list[Candidate]:
    if not texts:
        return []
    return await backend.score_all(request.prompt_ids, texts, request.top_logprobs)


@dataclass(frozen=True)
class GivenText(Strategy):
    """Takes given token ids for the answer, and scores them by teacher forcing.

    Example:
        ids = await backend.encode_continuation(" Paris")
        result = await run_strategy(GivenText(ids), Request(prompt_ids), backend)
    """

    token_ids: Ids

    async def __call__(self, run: Run) -> Result:
        """Score them behind the run's prompt, in one forward pass."""
        started, request = time.perf_counter(), run.request
        candidates = await run.backend.score_all(
            request.prompt_ids, [self.token_ids], request.top_logprobs
        )
        seconds = time.perf_counter() - started
        return await run.assess(scored_result(candidates, run.methods, seconds, request))

    def samples(self, request: Request) -> int:
        """Return 1: there is nothing that it could be compared with."""
        return 1


@dataclass(frozen=True, eq=False)
class _Cut:
    """What of a text is known: `ids` of `generated` are its beginning, `rest` is left over."""

    ids: Ids
    generated: Candidate | None
    text: str = ""
    """The text of `ids`."""
    rest: str = ""
    fresh: Ids | None = None
    """The text tokenised afresh."""
    heal: bool = False
    """Whether the rest is scored as well."""

    @property
    def is_healed(self) -> bool:
        """Whether a pass of its own scores what is left over."""
        return self.heal and bool(self.rest)

    @property
    def is_sliced(self) -> bool:
        """Whether no pass is needed at all."""
        return self.generated is not None and not self.is_healed

    def slice(self) -> Candidate:
        """Return the whole tokens before the cut with the trace they were generated with."""
        assert self.generated is not None
        candidate = truncated(self.generated, len(self.ids))
        return candidate if candidate is self.generated else replace(candidate, text=self.text)


async def _cut(
    backend: Backend,
    text: str | Ids,
    generated: Sequence[tuple[Candidate, list[str]]],
    is_data: bool,
) -> _Cut:
    if not isinstance(text, str):
        ids = tuple(token_ids("a text", text))
        for one, pieces in generated:
            if one.token_ids[: len(ids)] == ids:
                return _Cut(ids, one, "".join(pieces[: len(ids)]))
        return _Cut(ids, None)
    fresh = await encode_given(backend, text, is_data=is_data) if text else ()
    for one, pieces in generated:
        if "".join(pieces).startswith(text):
            tokens, rest = _whole_tokens(pieces, text)
            return _Cut(one.token_ids[:tokens], one, text.removesuffix(rest), rest, fresh)
    return _Cut(fresh, None)


def _whole_tokens(pieces: Sequence[str], text: str) -> tuple[int, str]:
    """Return how many tokens lie within the text, and what of the text is left over.

    The bytes of a character that lies beyond the cut add no text yet; they stay outside.
    """
    if len(text) == sum(map(len, pieces)):
        return len(pieces), ""
    tokens, length, end = 0, 0, 0
    for count, piece in enumerate(pieces, 1):
        end += len(piece)
        if end > len(text):
            break
        if piece:
            tokens, length = count, end
    return tokens, text[length:]


async def _healed(backend: Backend, cut: _Cut, is_data: bool) -> Candidate:
    """Return the slice and, from a pass of its own, what a cut within a token left over."""
    known, rest = cut.slice(), await encode_given(backend, cut.rest, is_data=is_data)
    tail = sound_candidate(await backend.score(known.prompt_ids + known.token_ids, rest))
    return replace(
        known,
        token_ids=known.token_ids + rest,
        text=known.text + cut.rest,
        trace=known.trace.joined(tail.trace),
    )


def _counted(result: Result, cut: _Cut) -> Result:
    """Return the result with what was scored, and what was only sliced."""
    known = len(cut.ids) if cut.generated is not None else 0
    usage = replace(
        result.usage,
        prompt_tokens=0 if cut.is_sliced else result.usage.prompt_tokens,
        cached_tokens=0 if cut.is_sliced else result.usage.cached_tokens,
        generated_tokens=0,
        scored_tokens=len(result.candidate.token_ids) - known,
        saved_tokens=known,
        forward_passes=0 if cut.is_sliced else 1,
    )
    return replace(result, usage=usage)


def _decided(policy: Policy, results: Sequence[Result]) -> list[Result]:
    try:
        return [policy.decide(result) for result in results]
    except HighUncertaintyError as error:
        error.completed = dict(enumerate(results))
        raise


def _truncated_score(result: Result, cut: _Cut) -> TruncatedScore:
    return TruncatedScore(
        candidate=result.candidate,
        scores=result.scores[0],
        usage=result.usage,
        is_sliced=cut.is_sliced,
        decision=result.decision,
        unscored_text="" if cut.is_healed else cut.rest,
        first_difference=_first_difference(cut),
    )


def _first_difference(cut: _Cut) -> int | None:
    if cut.fresh is None or cut.fresh[: len(cut.ids)] == cut.ids:
        return None
    pairs = zip(cut.fresh, cut.ids, strict=False)
    shorter = min(len(cut.fresh), len(cut.ids))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)
