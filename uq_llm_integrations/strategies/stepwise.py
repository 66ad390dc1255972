"""Step-wise best of N: the best of several next steps is kept, and generation goes on from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydantic.json_schema import SkipJsonSchema

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.capabilities import most_tokens
from uq_llm_integrations.errors import ConfigurationError, UncertaintyError, described
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Candidate, Decision, Request, Result, SamplingEnd
from uq_llm_integrations.strategies.adaptive import numbered
from uq_llm_integrations.strategies.base import (
    PLAIN_DATA,
    Run,
    Strategy,
    check_count,
    check_function,
    check_many,
    check_orders,
)
from uq_llm_integrations.strategies.condition_text import When, as_condition
from uq_llm_integrations.strategies.conditions import check_condition
from uq_llm_integrations.strategies.results import concluded, lowest, merged, ordered, scored_result
from uq_llm_integrations.strategies.step_state import StepState

DEFAULT_MAX_TOKENS = 256
"""The most tokens of a step-wise answer where neither `max_tokens` nor a context sets an end."""


@dataclass(frozen=True)
class Boundary:
    """A step ends behind any of these, whichever comes first.

    `strings` are stop strings of the engine; `pattern` is searched for in the step's text;
    `max_tokens` is the most tokens of a step; `test` returns True for a text at whose end a step
    ends. `thinking` has the markers that begin and end a reasoning part, such as
    ("<think>", "</think>"): a step never reaches across one of them.

    Raises ConfigurationError for what could never end a step, or would end every one at once.

    Example:
        >>> Boundary(strings=(";", "."), max_tokens=64).stop_strings
        (';', '.')
    """

    __pydantic_config__ = PLAIN_DATA

    strings: tuple[str, ...] = ("\n",)
    pattern: str | None = None
    max_tokens: int | None = None
    test: SkipJsonSchema[Callable[[str], bool] | None] = None
    thinking: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for name, given in (("strings", self.strings), ("thinking", self.thinking or ())):
            if not isinstance(given, list | tuple):
                raise ConfigurationError(
                    f"{name} is {described(given)}; it must be a tuple of strings"
                )
        if not isinstance(self.pattern, str | None):
            raise ConfigurationError(f"pattern is {described(self.pattern)}; it must be a text")
        if not all(isinstance(s, str) and s for s in self.stop_strings):
            raise ConfigurationError("a boundary string is empty; it would end every step at once")
        if len(self.thinking or ()) not in (0, 2):
            raise ConfigurationError(
                f"thinking is {described(self.thinking)}; it must be two markers"
            )
        if self.max_tokens is not None:
            check_count("max_tokens of a step", self.max_tokens)
        check_function("test", self.test)
        if not (self.stop_strings or self.pattern or self.max_tokens or self.test):
            raise ConfigurationError("a boundary needs a string, a pattern, max_tokens or a test")
        if self._regex is not None and self._regex.search("") is not None:
            raise ConfigurationError(
                f"the pattern {described(self.pattern)} matches no text at all"
            )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings and the markers."""
        return (*self.strings, *(self.thinking or ()))

    def request(self, request: Request, prompt_ids: tuple[int, ...], n: int, most: int) -> Request:
        """Return the request for one step of at most `most` tokens."""
        sampling = dict(request.sampling)
        sampling["stop"] = [*_stop_strings(request), *self.stop_strings]
        sampling["max_tokens"] = min(self.max_tokens or most, most)
        if least := sampling.get("min_tokens"):
            least -= len(prompt_ids) - len(request.prompt_ids)
            sampling["min_tokens"] = max(0, min(least, sampling["max_tokens"]))
        # The text then reaches to the boundary's end, as the tokens do.
        sampling["include_stop_str_in_output"] = True
        until = self._is_reached if self.pattern or self.test else None
        return replace(request, prompt_ids=prompt_ids, n=n, sampling=sampling, until=until)

    def ends(self, candidate: Candidate, most: int) -> bool:
        """Return whether a step ended at a boundary, so that another can follow."""
        if candidate.finish_reason == "length":
            return self.max_tokens is not None and len(candidate.token_ids) < most
        if candidate.finish_reason == "stop":
            return candidate.stop_reason in self.stop_strings
        return candidate.finish_reason == "boundary"

    def _is_reached(self, text: str) -> bool:
        if self._regex is not None and self._regex.search(text):
            return True
        return bool(self.test and self.test(text))

    @cached_property
    def _regex(self) -> re.Pattern[str] | None:
        try:
            return re.compile(self.pattern) if self.pattern else None
        except re.error as error:
            raise ConfigurationError(
                f"the pattern {described(self.pattern)} is wrong: {error}"
            ) from error


@dataclass(frozen=True)
class Stepwise(Strategy):
    """Samples `n` candidates for each step, keeps the least uncertain one by `by`, and goes on.

    With `branch_when`, a condition or its text, one candidate is sampled first, and the other
    n - 1 only where it meets the condition. The answer has at most the request's `max_tokens`;
    `token_budget` bounds all that is generated, what is not kept included. A step that fails ends
    the answer, and loses none of those before it.

    Raises ConfigurationError for values that can never work.

    Example:
        strategy = Stepwise(4, boundary=Boundary((".",)), branch_when="entropy > 1")
    """

    type = "stepwise"
    can_stream = True
    takes_steps = True

    n: int = 4
    by: str = "perplexity"
    boundary: Boundary = field(default_factory=Boundary)
    branch_when: When | None = None
    max_steps: int | None = None
    token_budget: int | None = None

    def __post_init__(self) -> None:
        check_count("n", self.n)
        check_orders(self.by)
        if not isinstance(self.boundary, Boundary):
            raise ConfigurationError(
                f"boundary is {described(self.boundary)}; it must be a Boundary"
            )
        if self.branch_when is not None:
            object.__setattr__(self, "branch_when", as_condition(self.branch_when))
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

    async def __call__(self, run: Run) -> Result:
        """Take steps until one is the last."""
        return await self.finish(run, run.begun or StepState(run.request.prompt_ids))

    async def finish(self, run: Run, state: StepState) -> Result:
        """Go on from a state until a step is the last, and return the scored answer."""
        while not state.is_finished:
            state = await self.step(run, state)
        return await run.assess(self.result(run, state))

    async def step(self, run: Run, state: StepState) -> StepState:
        """Return the state after one more step; one that fails ends those before it."""
        try:
            return await self.advance(run, state)
        except UncertaintyError as error:
            if not state.steps:
                raise
            return replace(state, finish_reason="error", error=error)

    async def advance(self, run: Run, state: StepState) -> StepState:
        """Return the state after one more step.

        The run's request has the sampling parameters of the whole answer.
        """
        most = self._most_tokens(state, run)
        if most < 1:
            return replace(state, finish_reason="length")
        request = self._request(state, run.request, most)
        result = await self._sample(replace(run, request=request, methods=(self.by,)))
        result = ordered(result, lowest(result, self.by))
        chosen = result.candidate
        text = await run.backend.decode(state.token_ids + chosen.token_ids)
        end, stop = self._own_stop(text, state, chosen, run.request)
        if stop is not None and stop != chosen.stop_reason:
            chosen = await _until_stop(run, state, chosen, stop)
        score, count = result.scores[0][self.by], len(result.candidates)
        after = state.with_step(chosen, text[:end], score, result.usage, count)
        if stop is not None:
            return replace(after, finish_reason="stop", stop_reason=stop)
        return self._ended(after, chosen, most, run)

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Refuse candidates that are all the same, and conditions that can never be decided."""
        check_many(self.n, self.by, request, capabilities, options)
        if self.branch_when is not None:
            check_condition(as_condition(self.branch_when), 1, capabilities, options)

    def samples(self, request: Request) -> int:
        """Return 1: the candidates of a step are no answers to choose among."""
        return 1

    def result(self, run: Run, state: StepState) -> Result:
        """Return all steps as one candidate, scored by the methods that read its trace alone.

        The usage is that of all that was generated.
        """
        result = scored_result([state.candidate()], run.methods, 0.0, run.request)
        result = replace(result, usage=state.usage)
        if state.error is None:
            return concluded(result)
        reason = f"a step failed: {state.error}"
        decision = Decision(condition=reason, is_uncertain=True)
        return replace(result, decision=decision, sampling_end=SamplingEnd("failed", reason))

    def _request(self, state: StepState, whole: Request, most: int) -> Request:
        """Return the request for the next step, which also ends where a stop string is complete.

        The engine knows nothing of what it began with in the step before.
        """
        prompt_ids = state.prompt_ids + state.token_ids
        request = self.boundary.request(whole, prompt_ids, self.n, most)
        request = numbered(request, len(state.steps) * self.n, self.n)
        held, own, until = state.held, self._own_stops(whole), request.until
        if not held or not own:
            return request

        def is_reached(text: str) -> bool:
            is_complete = any(0 <= (held + text).find(stop) < len(held) for stop in own)
            return is_complete or bool(until and until(text))

        return replace(request, until=is_reached)

    def _ended(self, state: StepState, last: Candidate, most: int, run: Run) -> StepState:
        """Return the state, finished where no other step can follow its last one."""
        if not self.boundary.ends(last, most) or not last.token_ids:
            return replace(state, finish_reason=last.finish_reason, stop_reason=last.stop_reason)
        is_last = self.max_steps is not None and len(state.steps) >= self.max_steps
        if is_last or self._most_tokens(state, run) < 1:
            return replace(state, finish_reason="length")
        return state.holding_back(self._own_stops(run.request))

    def _own_stops(self, request: Request) -> list[str]:
        """Return the stop strings that end the answer, and not only a step."""
        return [one for one in _stop_strings(request) if one not in self.boundary.stop_strings]

    def _own_stop(
        self, text: str, state: StepState, chosen: Candidate, request: Request
    ) -> tuple[int, str | None]:
        """Return where the text of the answer ends, and the stop string that ends it, if one does.

        The engine has found it within the step, or it began in what was held back.
        """
        start, reached = len(state.text), len(state.text) + len(state.held)
        found = [
            (at, stop)
            for stop in self._own_stops(request)
            if (at := text.find(stop, start)) >= 0 and (at < reached or stop == chosen.stop_reason)
        ]
        if not found:
            return len(text), None
        at, stop = min(found)
        is_shown = request.sampling.get("include_stop_str_in_output")
        return at + len(stop) * bool(is_shown), stop

    def _most_tokens(self, state: StepState, run: Run) -> int:
        limit = most_tokens(run.request, run.backend.capabilities.context_length)
        limit = DEFAULT_MAX_TOKENS if limit is None else limit
        most = limit - len(state.token_ids)
        if self.token_budget is not None:
            most = min(most, (self.token_budget - state.usage.generated_tokens) // self.n)
        return most

    async def _sample(self, run: Run) -> Result:
        """Return the candidates of one step, with the scores that choose among them."""
        if self.branch_when is None:
            return await run.assess(await run.sample())
        branch_when = as_condition(self.branch_when)
        run = run.vary(methods=branch_when.methods)
        one = run.vary(replace(run.request, n=1))
        first = await one.assess(await one.sample())
        if self.n == 1 or not branch_when.is_met(first):
            return first
        others = run.vary(numbered(run.request, 1, self.n - 1))
        return merged(first, await others.assess(await others.sample()))


async def _until_stop(run: Run, state: StepState, chosen: Candidate, stop: str) -> Candidate:
    """Return the candidate up to the token with which a stop string is whole.

    The engine decodes a step by itself, and may see the string late where it cuts a character.
    """
    for count in range(1, len(chosen.token_ids)):
        text = await run.backend.decode(state.token_ids + chosen.token_ids[:count])
        if text.find(stop, len(state.text)) >= 0:
            ids, trace = chosen.token_ids[:count], chosen.trace[:count]
            return replace(chosen, token_ids=ids, trace=trace)
    return chosen


def _stop_strings(request: Request) -> list[str]:
    own = request.sampling.get("stop") or []
    return [own] if isinstance(own, str) else list(own)
