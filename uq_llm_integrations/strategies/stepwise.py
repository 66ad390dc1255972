"""Step-wise best of N: the best of several next steps is kept, and generation goes on from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import ConfigurationError, UncertaintyError
from uq_llm_integrations.methods.assess import assessed
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, find_method
from uq_llm_integrations.methods.wishes import Decode
from uq_llm_integrations.records import Candidate, Decision, Request, Result
from uq_llm_integrations.strategies.adaptive import drawn_and_assessed, numbered
from uq_llm_integrations.strategies.boundaries import Boundary
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.drive import arun_steps
from uq_llm_integrations.strategies.judge import judge, merged, ordered
from uq_llm_integrations.strategies.step_state import Step, StepState
from uq_llm_integrations.strategies.voting import lowest
from uq_llm_integrations.strategies.wishes import (
    Steps,
    Strategy,
    Wish,
    check_condition,
    check_count,
    check_varied,
)
from uq_llm_integrations.truncation import TruncatedScore, ascore_truncated_sequences

DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True)
class Stepwise(Strategy):
    """Draws `n` candidates for each step, keeps the least uncertain one by `by`, and goes on.

    With `branch_when`, one candidate is drawn first, and the other n - 1 only where it meets the
    condition. The answer has at most the request's `max_tokens`; `token_budget` bounds all that is
    generated, what is not kept included.
    """

    n: int = 4
    by: str = "perplexity"
    boundary: Boundary = field(default_factory=Boundary)
    branch_when: Condition | None = None
    max_steps: int | None = None
    token_budget: int | None = None

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if find_method(self.by).level != "sequence":
            raise ConfigurationError(f"{self.by} has no one score to choose by")
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps)
        if self.token_budget is not None:
            check_count("token_budget", self.token_budget)
            step = self.n * (self.boundary.max_tokens or 1)
            if self.token_budget < step:
                raise ConfigurationError(
                    f"a token budget of {self.token_budget} is smaller than one step of {self.n} "
                    f"candidates, which takes {step}"
                )

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Take steps until one is the last."""
        return (yield from self.finished(StepState(request.prompt_ids), request, methods))

    def finished(self, state: StepState, request: Request, methods: Sequence[str]) -> Steps:
        """Go on from a state until a step is the last; one that fails loses none before it."""
        failure: UncertaintyError | None = None
        while not state.is_finished and failure is None:
            try:
                state = yield from self.advanced(state, request)
            except UncertaintyError as error:
                if not state.steps:
                    raise
                failure = error
        result = self.result(state, methods, failure)
        return (yield from assessed(result, request, methods))

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse candidates that are all the same, and conditions that cannot be asked."""
        check_varied(request, self.n)
        check_available([self.by], capabilities, request.method_options)
        if self.branch_when is not None:
            check_condition(self.branch_when, 1, capabilities, request)

    def advanced(self, state: StepState, request: Request) -> Generator[Wish, Any, StepState]:
        """Take one step. `request` has the sampling parameters, and the prompt's own tokens."""
        most = self._most_tokens(state, request)
        if most < 1:
            return replace(state, finish_reason="length")
        asked = self.boundary.request(request, state.prompt_ids + state.token_ids, self.n, most)
        result = yield from self._drawn(numbered(asked, len(state.steps) * self.n, self.n))
        result = ordered(result, lowest(result, self.by))
        chosen = result.candidate
        text = yield Decode(state.token_ids + chosen.token_ids)
        text = self._without_stop(text, state, chosen, request)
        count = len(result.candidates)
        after = state.with_step(chosen, text, result.scores[0][self.by], result.usage, count)
        is_last = not self.boundary.ends(chosen, most) or not chosen.token_ids
        if is_last:
            return replace(
                after, finish_reason=chosen.finish_reason, stop_reason=chosen.stop_reason
            )
        if self.max_steps is not None and len(after.steps) >= self.max_steps:
            return replace(after, finish_reason="length")
        return after

    def result(
        self,
        state: StepState,
        methods: Sequence[str],
        failure: UncertaintyError | None = None,
    ) -> Result:
        """Return all steps as one scored candidate, with the usage of all that was drawn."""
        candidate = state.candidate()
        decision = Decision()
        if failure is not None:
            candidate = replace(candidate, finish_reason="error", error=failure)
            decision = Decision("stopped_early", f"a step failed: {failure}", is_uncertain=True)
        scored = judge([candidate], methods, 0.0)
        return replace(scored, usage=state.usage, decision=decision)

    def _without_stop(
        self, text: str, state: StepState, chosen: Candidate, request: Request
    ) -> str:
        """Leave out the request's own stop string, as generation without steps does."""
        stop = chosen.stop_reason
        is_shown = request.sampling.get("include_stop_str_in_output")
        if not isinstance(stop, str) or stop in self.boundary.stop_strings or is_shown:
            return text
        return text[: text.find(stop, len(state.text))]

    def _most_tokens(self, state: StepState, request: Request) -> int:
        limit = request.sampling.get("max_tokens") or DEFAULT_MAX_TOKENS
        most = int(limit) - len(state.token_ids)
        if self.token_budget is not None:
            most = min(most, (self.token_budget - state.usage.generated_tokens) // self.n)
        return most

    def _drawn(self, request: Request) -> Generator[Wish, Any, Result]:
        if self.branch_when is None:
            return (yield from drawn_and_assessed(request, [self.by]))
        methods = tuple(dict.fromkeys([self.by, *self.branch_when.methods]))
        first = yield from drawn_and_assessed(replace(request, n=1), methods)
        if self.n == 1 or self.branch_when(first) is False:
            return first
        rest = yield from drawn_and_assessed(numbered(request, 1, self.n - 1), methods)
        return merged(first, rest)


class VLLMStepGenerator:
    """Generates step by step: all at once, as a stream of steps, or on from a saved state.

    `strategy` says how steps are drawn and chosen. Sampling parameters are vLLM's.
    """

    def __init__(
        self,
        backend: Backend,
        strategy: Stepwise | None = None,
        methods: Sequence[str] = DEFAULT_METHODS,
        *,
        chat: bool = False,
        **sampling: Any,
    ) -> None:
        self._backend, self._strategy = backend, strategy or Stepwise()
        self._methods, self._chat = methods, chat
        self._sampling = {"temperature": 0.7, "max_tokens": DEFAULT_MAX_TOKENS} | sampling
        self._strategy.check(self._request((0,)), backend.capabilities)
        self._generated: list[Candidate] = []

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the generator that a YAML file or a dict describes; its strategy is stepwise."""
        from uq_llm_integrations.configuration import Configuration

        read = Configuration.read(source)
        strategy = read.strategy.build()
        if not isinstance(strategy, Stepwise):
            raise ConfigurationError(f"strategy.type is {read.strategy.type!r}, not 'stepwise'")
        backend = read.generator.backend()
        return cls(backend, strategy, read.methods, chat=read.chat_template, **read.sampling)

    def generate(self, prompt: str) -> Result:
        """Return the whole answer, blocking."""
        return self._backend.run(self.agenerate(prompt))

    async def agenerate(self, prompt: str) -> Result:
        """Return the whole answer."""
        return await self.aresume(await self.astart(prompt))

    def stream(self, prompt: str) -> Iterator[Step]:
        """Yield the steps as they are kept, blocking."""
        return self._backend.iterate(self.astream(prompt))

    async def astream(self, prompt: str) -> AsyncIterator[Step]:
        """Yield the steps as they are kept."""
        seen = 0
        async for state in self.astates(await self.astart(prompt)):
            for step in state.steps[seen:]:
                yield step
            seen = len(state.steps)

    async def astart(self, prompt: str) -> StepState:
        """Return the state before the first step."""
        return StepState(await self._backend.encode(prompt, chat=self._chat))

    async def astates(self, state: StepState) -> AsyncIterator[StepState]:
        """Go on from a state, which may have been saved, and yield the state after each step."""
        while not state.is_finished:
            advancing = self._strategy.advanced(state, self._request(state.prompt_ids))
            state = await arun_steps(advancing, self._backend)
            self._remember(state.candidate())
            yield state

    def resume(self, state: StepState) -> Result:
        """Go on from a saved state to the end, blocking."""
        return self._backend.run(self.aresume(state))

    async def aresume(self, state: StepState) -> Result:
        """Go on from a saved state to the end."""
        request = self._request(state.prompt_ids)
        finishing = self._strategy.finished(state, request, self._methods)
        result = await arun_steps(finishing, self._backend)
        self._remember(result.candidate)
        return result

    def result(self, state: StepState) -> Result:
        """Return the steps of a state as one scored result."""
        return self._strategy.result(state, self._methods)

    def score_truncated_sequence(
        self, prompt: str, truncated_text: str, *, heal: bool = False
    ) -> TruncatedScore:
        """Score a text behind a prompt, blocking.

        Where it is the beginning of what this object has generated, no forward pass is made, but
        for what a cut within a token leaves over, with `heal`.
        """
        return self.score_truncated_sequences(prompt, [truncated_text], heal=heal)[0]

    def score_truncated_sequences(
        self, prompt: str, texts: Sequence[str], *, heal: bool = False
    ) -> list[TruncatedScore]:
        """Score several texts behind one prompt, in one batch."""
        return self._backend.run(self.ascore_truncated_sequences(prompt, texts, heal=heal))

    async def ascore_truncated_sequences(
        self, prompt: str, texts: Sequence[str], *, heal: bool = False
    ) -> list[TruncatedScore]:
        """Score several texts behind one prompt, in one batch."""
        ids = await self._backend.encode(prompt, chat=self._chat)
        return await ascore_truncated_sequences(
            self._backend, ids, texts, self._generated, self._methods, heal=heal
        )

    def _request(self, prompt_ids: tuple[int, ...]) -> Request:
        return Request(prompt_ids, sampling=self._sampling)

    def _remember(self, candidate: Candidate) -> None:
        kept = [one for one in self._generated if not _begins(one, candidate)]
        self._generated = [*kept, candidate][-_MOST_REMEMBERED:]


_MOST_REMEMBERED = 64


def _begins(one: Candidate, other: Candidate) -> bool:
    ids = one.token_ids
    return one.prompt_ids == other.prompt_ids and other.token_ids[: len(ids)] == ids
