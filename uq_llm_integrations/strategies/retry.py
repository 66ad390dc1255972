"""Trying again: on uncertainty, and, by a rule of its own, on errors of the engine.

Both are tenacity's: its `stop`, `wait` and callbacks are passed in, only the predicate is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenacity import (
    DoAttempt,
    DoSleep,
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_none,
    wait_random_exponential,
)
from tenacity.retry import retry_base
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import ConfigurationError, UncertaintyError
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.records import Decision, Request, Result, Usage
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.wishes import (
    Delegate,
    Sleep,
    Steps,
    Strategy,
    check_condition,
)

Callback = Callable[[RetryCallState], Any]

_THREE_ATTEMPTS, _NO_WAIT = stop_after_attempt(3), wait_none()
_JITTER = wait_random_exponential(max=10)


@dataclass(frozen=True)
class Retry(Strategy):
    """Runs a strategy again while its result meets a condition, or cannot be known not to.

    Each attempt changes something: the seed, where there is one, and the temperature, along
    `temperatures` (the last one stays). Where all attempts were uncertain, `last_resort`, another
    backend with a bigger model, gets one. The last attempt is the result; the others are in its
    `attempts`. An attempt that fails ends the retries, and loses none of those before it.
    """

    strategy: Strategy
    when: Condition
    stop: StopBaseT = _THREE_ATTEMPTS
    wait: WaitBaseT = _NO_WAIT
    temperatures: Sequence[float] = ()
    last_resort: Backend | None = None
    before: Callback | None = None
    after: Callback | None = None
    before_sleep: Callback | None = None

    def __post_init__(self) -> None:
        for value in self.temperatures:
            if not math.isfinite(value) or value < 0:
                raise ConfigurationError(f"a temperature is {value!r}; it must be a number from 0")

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Run the strategy until its result will do."""
        methods = tuple(dict.fromkeys([*methods, *self.when.methods]))
        attempts: list[Result] = []

        def attempt() -> Steps:
            varied = self._varied(request, len(attempts))
            attempts.append((yield from self.strategy(varied, methods)))
            return attempts[-1]

        predicate = retry_if_result(lambda result: self.when(result) is not False)
        failure: UncertaintyError | None = None
        try:
            if self._repeats_itself(request):
                yield from attempt()
            else:
                yield from _attempts(attempt, self._retrying(predicate))
            if self.last_resort and self.when(attempts[-1]) is not False:
                attempts.append((yield Delegate(self.strategy, request, methods, self.last_resort)))
        except UncertaintyError as error:
            if not attempts:
                raise
            failure = error  # the attempts before are a result all the same
        return self._kept(attempts, failure)

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse a retry that would repeat itself, and a condition that cannot be asked."""
        self.strategy.check(request, capabilities)
        check_condition(self.when, self.strategy.samples(request), capabilities, request)
        if self._repeats_itself(request) and self.last_resort is None:
            raise ConfigurationError(
                "a retry at temperature 0 would give the same answer again; "
                "give `temperatures` for the retries, or a `last_resort`"
            )

    def samples(self, request: Request) -> int:
        """Return those of one attempt."""
        return self.strategy.samples(request)

    def _repeats_itself(self, request: Request) -> bool:
        return request.sampling.get("temperature") == 0 and not any(self.temperatures)

    def _varied(self, request: Request, attempt: int) -> Request:
        sampling = dict(request.sampling)
        if attempt and sampling.get("seed") is not None:
            sampling["seed"] += attempt * self.strategy.samples(request)
        if attempt and self.temperatures:
            place = min(attempt, len(self.temperatures)) - 1
            sampling["temperature"] = self.temperatures[place]
        return replace(request, sampling=sampling)

    def _retrying(self, predicate: retry_base) -> Retrying:
        callbacks = {"before": self.before, "after": self.after, "before_sleep": self.before_sleep}
        given: dict[str, Any] = {name: call for name, call in callbacks.items() if call}
        return Retrying(
            stop=self.stop,
            wait=self.wait,
            retry=predicate,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
            **given,
        )

    def _kept(self, attempts: list[Result], failure: UncertaintyError | None) -> Result:
        last, verdict = attempts[-1], self.when(attempts[-1])
        if len(attempts) == 1 and verdict is False:
            return last
        decision = Decision(
            action="retried" if len(attempts) > 1 else last.decision.action,
            condition=repr(self.when) + (f"; a retry failed: {failure}" if failure else ""),
            is_uncertain=verdict is not False,
            text=last.decision.text,
        )
        usage = sum((one.usage for one in attempts), Usage())
        return replace(last, decision=decision, usage=usage, attempts=tuple(attempts[:-1]))


@dataclass(frozen=True)
class RetryErrors(Strategy):
    """Runs a strategy again where it failed with an error that says that this can help."""

    strategy: Strategy
    stop: StopBaseT = _THREE_ATTEMPTS
    wait: WaitBaseT = _JITTER

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Run the strategy until it does not fail."""
        retrying = Retrying(
            stop=self.stop,
            wait=self.wait,
            retry=retry_if_exception(_is_retryable),
            reraise=True,
        )
        return (yield from _attempts(lambda: self.strategy(request, methods), retrying))

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Check the strategy."""
        self.strategy.check(request, capabilities)

    def samples(self, request: Request) -> int:
        """Return the strategy's."""
        return self.strategy.samples(request)


def _attempts(run: Callable[[], Steps], retrying: Retrying) -> Steps:
    """Run a generator as often as tenacity says; what it would sleep becomes a wish."""
    retrying.begin()
    state = RetryCallState(retrying, None, (), {})
    while True:
        do = retrying.iter(retry_state=state)
        if isinstance(do, DoAttempt):
            try:
                state.set_result((yield from run()))
            except UncertaintyError as error:
                state.set_exception((type(error), error, error.__traceback__))
        elif isinstance(do, DoSleep):
            state.prepare_for_next_attempt()
            yield Sleep(float(do))
        else:
            result: Result = do
            return result


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, UncertaintyError) and error.is_retryable
