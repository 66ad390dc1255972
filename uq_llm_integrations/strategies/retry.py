"""Trying again: on uncertainty, and, by a rule of its own, on errors of the engine.

Both are tenacity's: its `stop`, `wait` and callbacks are passed in, only the predicate is ours.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import tenacity
from pydantic.json_schema import SkipJsonSchema
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import (
    ConfigurationError,
    HighUncertaintyError,
    UncertaintyError,
    described,
)
from uq_llm_integrations.identity import NO_PART
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Decision, Request, Result, Usage
from uq_llm_integrations.strategies.base import (
    Run,
    Strategy,
    check_count,
    check_function,
    check_number,
    check_run,
    check_strategy,
    wrapped_strategy,
)  # fmt: skip  # a list of names
from uq_llm_integrations.strategies.condition_text import When, as_condition
from uq_llm_integrations.strategies.conditions import check_condition

Callback = Callable[[tenacity.RetryCallState], Awaitable[None] | None]


@dataclass(frozen=True)
class Retry(Strategy):
    """Runs a strategy again while its result meets a condition, or cannot be known not to.

    `when` is a condition or its text. There are `attempts` at most, or as many as `stop` allows,
    one of tenacity's. Each changes something: the seed, where there is one, and the temperature,
    along `temperatures` (the last one stays). Where all were uncertain, `last_resort`, another
    backend with a bigger model, gets one. The last attempt is the result; the others are in its
    `attempts`. An attempt that fails ends the retries, and loses none of those before it.

    Example:
        strategy = Retry(Single(), "entropy > 1.5", attempts=3, temperatures=(0.7, 0.3))
    """

    type = "retry"

    strategy: Strategy
    when: When
    stop: SkipJsonSchema[StopBaseT | None] = None
    wait: SkipJsonSchema[WaitBaseT | None] = field(default=None, metadata=NO_PART)
    temperatures: Sequence[float] = ()
    last_resort: SkipJsonSchema[Backend | None] = None
    before: SkipJsonSchema[Callback | None] = field(default=None, metadata=NO_PART)
    after: SkipJsonSchema[Callback | None] = field(default=None, metadata=NO_PART)
    before_sleep: SkipJsonSchema[Callback | None] = field(default=None, metadata=NO_PART)
    attempts: int = 3

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        object.__setattr__(self, "when", as_condition(self.when))
        check_count("attempts", self.attempts)
        for name in ("stop", "wait", "before", "after", "before_sleep"):
            check_function(name, getattr(self, name))
        if not isinstance(self.last_resort, Backend | None):
            raise ConfigurationError(
                f"last_resort is {described(self.last_resort)}; it must be a backend"
            )
        given = self.temperatures
        given = (given,) if isinstance(given, int | float) else given
        if not isinstance(given, list | tuple):
            raise ConfigurationError(
                f"temperatures is {described(given)}; it must be a tuple of numbers"
            )
        object.__setattr__(self, "temperatures", tuple(given))
        for value in self.temperatures:
            check_number("a temperature", value)

    async def __call__(self, run: Run) -> Result:
        """Run the strategy until its result will do."""
        run = run.vary(methods=as_condition(self.when).methods)
        results: list[Result] = []
        failure: UncertaintyError | None = None
        try:
            await self._try(run, results)
            if self.last_resort and self._is_uncertain(results[-1]):
                results.append(await self._run_last_resort(run, self.last_resort))
        except UncertaintyError as error:
            if not results:
                raise
            failure = error  # the attempts before are a result all the same
        return self._kept(results, failure)

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Refuse a retry that would repeat itself, and a condition that can never be decided."""
        self.strategy.check(request, capabilities, options)
        samples = self.strategy.samples(request)
        check_condition(as_condition(self.when), samples, capabilities, options)
        if self._repeats_itself(request) and self.last_resort is None:
            raise ConfigurationError(
                "a retry at temperature 0 would give the same answer again; "
                "give `temperatures` for the retries, or a `last_resort`"
            )

    def samples(self, request: Request) -> int:
        """Return those of one attempt."""
        return self.strategy.samples(request)

    def _is_uncertain(self, result: Result) -> bool:
        return as_condition(self.when).is_met(result)

    def _repeats_itself(self, request: Request) -> bool:
        return request.sampling.get("temperature") == 0 and not any(self.temperatures)

    async def _try(self, run: Run, results: list[Result]) -> None:
        """Add the attempts' results."""

        async def attempt() -> Result:
            varied = self._varied(run.request, len(results))
            results.append(await self.strategy(run.vary(varied)))
            return results[-1]

        retrying = tenacity.AsyncRetrying(
            stop=self.stop or tenacity.stop_after_attempt(self.attempts),
            wait=self.wait or tenacity.wait_none(),
            retry=tenacity.retry_if_result(self._is_uncertain),
            before=self.before or tenacity.before_nothing,
            after=self.after or tenacity.after_nothing,
            before_sleep=self.before_sleep,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        await (attempt() if self._repeats_itself(run.request) else retrying(attempt))

    async def _run_last_resort(self, run: Run, backend: Backend) -> Result:
        elsewhere = await run.on(backend)
        check_run(self.strategy, elsewhere)
        return await self.strategy(elsewhere)

    def _varied(self, request: Request, attempt: int) -> Request:
        sampling = dict(request.sampling)
        if attempt and sampling.get("seed") is not None:
            sampling["seed"] += attempt * self.strategy.samples(request)
        if attempt and self.temperatures:
            index = min(attempt, len(self.temperatures)) - 1
            sampling["temperature"] = self.temperatures[index]
        return replace(request, sampling=sampling)

    def _kept(self, results: list[Result], failure: UncertaintyError | None) -> Result:
        """Return the last result, with what all of them cost."""
        last, is_uncertain = results[-1], self._is_uncertain(results[-1])
        if len(results) == 1 and not is_uncertain:
            return last
        decision = Decision(
            action="retried" if len(results) > 1 else last.decision.action,
            condition=repr(self.when) + (f"; a retry failed: {failure}" if failure else ""),
            is_uncertain=is_uncertain or last.decision.is_uncertain,
            text=last.decision.text,
        )
        usage = sum((one.usage for one in results), Usage())
        return replace(last, decision=decision, usage=usage, attempts=tuple(results[:-1]))


@dataclass(frozen=True)
class RetryErrors(Strategy):
    """Runs a strategy again where it failed with an error for which this can help.

    There are `attempts` at most, or as many as `stop` allows, one of tenacity's; `wait` says how
    long to wait between them, by default at random, longer each time and 10 s at most. The last
    error is raised. One within another, which would try attempts times attempts, is refused.

    Example:
        strategy = RetryErrors(Single(), attempts=5)
    """

    type = "retry_errors"

    strategy: Strategy
    stop: SkipJsonSchema[StopBaseT | None] = field(default=None, metadata=NO_PART)
    wait: SkipJsonSchema[WaitBaseT | None] = field(default=None, metadata=NO_PART)
    attempts: int = field(default=3, metadata=NO_PART)

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        if _has_retries(self.strategy):
            raise ConfigurationError(
                "errors are tried again by a RetryErrors already; give either it or max_retries, "
                "and only once"
            )
        check_count("attempts", self.attempts)
        check_function("stop", self.stop)
        check_function("wait", self.wait)

    async def __call__(self, run: Run) -> Result:
        """Run the strategy until it does not fail."""
        retrying = tenacity.AsyncRetrying(
            stop=self.stop or tenacity.stop_after_attempt(self.attempts),
            wait=self.wait or tenacity.wait_random_exponential(max=10),
            retry=tenacity.retry_if_exception(_is_retryable),
            reraise=True,
        )
        return await retrying(self.strategy, run)

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Check the strategy."""
        self.strategy.check(request, capabilities, options)

    def samples(self, request: Request) -> int:
        """Return the strategy's."""
        return self.strategy.samples(request)


def _has_retries(strategy: Strategy | None) -> bool:
    """Return whether a strategy, or one that it wraps, tries again after errors."""
    return strategy is not None and (
        isinstance(strategy, RetryErrors) or _has_retries(wrapped_strategy(strategy))
    )


def _is_retryable(error: BaseException) -> bool:
    """Return whether the same again can help; uncertainty is the business of `Retry`."""
    if isinstance(error, HighUncertaintyError):
        return False
    return isinstance(error, UncertaintyError) and error.is_retryable
