"""What a strategy is, and the run of one request that it is given."""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.prompts import encode_prompt
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    UncertaintyError,
    described,
)  # fmt: skip  # a list of names
from uq_llm_integrations.methods.combining import add_scores
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, check_available, find_method
from uq_llm_integrations.records import Candidate, Request, Result, SampleMonitor
from uq_llm_integrations.strategies.results import concluded, scored_result
from uq_llm_integrations.strategies.step_state import StepState
from uq_llm_integrations.telemetry.observed_calls import observed, operation_of

PLAIN_DATA = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
"""How pydantic builds a dataclass from plain data, with an error for what it does not have."""


@dataclass(frozen=True, eq=False)
class Generation:
    """The candidates of one request, and how many seconds they took."""

    candidates: Sequence[Candidate]
    seconds: float


@dataclass(frozen=True, eq=False)
class Run:
    """One request on its way: what a strategy reads, and through which it reaches the backend.

    `streamed` yields what was generated already, piece by piece, before the strategy began; it
    stands for the first generations that the strategy requests. `begun` are the steps that were
    taken already, where it takes steps.
    """

    backend: MeteredBackend
    request: Request
    methods: tuple[str, ...] = DEFAULT_METHODS
    options: MethodOptions = field(default_factory=MethodOptions)
    streamed: Iterator[Generation] | None = None
    begun: StepState | None = None
    on_closed: Callable[[Result], None] | None = None
    """Gets what was drawn where a stream is closed, or cancelled, before its last piece."""

    def vary(self, request: Request | None = None, methods: Sequence[str] = ()) -> Run:
        """Return the run of another request, with further methods; the usage is still counted."""
        joined = tuple(dict.fromkeys([*self.methods, *methods]))
        return replace(self, request=request or self.request, methods=joined)

    async def on(self, backend: Backend) -> Run:
        """Return the same run on another backend, whose tokenizer encodes the prompt again."""
        request = self.request
        if request.conversation:
            ids = await backend.encode_chat(request.conversation)
        elif request.text is not None:
            allowed = request.allow_special_tokens
            ids = await encode_prompt(
                backend, request.text, chat=request.chat, allow_special_tokens=allowed
            )
        else:
            raise ConfigurationError(
                "another model needs the prompt's text; give the request its `text`"
            )
        other, elsewhere = replace(request, prompt_ids=ids), self.backend.on(backend)
        return replace(self, backend=elsewhere, request=other, streamed=None, begun=None)

    async def sample(self, monitor: SampleMonitor | None = None) -> Result:
        """Generate the request's candidates and return them with the scores of their traces."""
        given = next(self.streamed, None) if self.streamed else None
        if given is not None:
            return scored_result(given.candidates, self.methods, given.seconds, self.request)
        started = time.perf_counter()
        candidates = await self.backend.generate(self.request, monitor)
        seconds = time.perf_counter() - started
        return scored_result(candidates, self.methods, seconds, self.request)

    async def assess(self, result: Result) -> Result:
        """Return the result with the scores of the methods that need more than a trace."""
        return await add_scores(result, self.backend, self.request, self.methods, self.options)


STRATEGIES: dict[str, type[Strategy]] = {}
"""Name in configuration files -> the strategy; each that has a `type` enters itself."""


class Strategy(ABC):
    """Decides what to generate for a request and which candidate is chosen.

    Strategies wrap one another: `Abstain(Retry(BestOfN(8), when=...), when=...)`. They are frozen
    dataclasses, which pydantic can build from plain data: `TypeAdapter(Strategy)` reads
    `{"type": "best_of_n", "n": 4}`. One of your own is in configuration files too, by its `type`.

    Example:
        @dataclass(frozen=True)
        class Shortest(Strategy):
            type = "shortest"

            async def __call__(self, run: Run) -> Result:
                result = await run.assess(await run.sample())
                return ordered(result, lambda i: (len(result.candidates[i].text),))
    """

    __pydantic_config__ = PLAIN_DATA
    type: ClassVar[str]
    """The name in configuration files."""

    can_stream: ClassVar[bool] = False
    """Whether the first sample of the request, unchanged, is the answer whatever its scores are,
    so that it can be shown while it is generated. Where it takes steps, each one is shown."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "type" in cls.__dict__:
            STRATEGIES[cls.type] = cls

    @abstractmethod
    async def __call__(self, run: Run) -> Result:
        """Return the result, scored by the run's methods and those that the strategy needs."""

    @property
    def takes_steps(self) -> bool:
        """Whether an answer comes from several requests, each of which goes on from what was kept.

        A grammar would begin anew in the middle of it.
        """
        wrapped = wrapped_strategy(self)
        return wrapped is not None and wrapped.takes_steps

    async def step(self, run: Run, state: StepState) -> StepState:
        """Return the state after one more step, where the strategy takes steps."""
        wrapped = wrapped_strategy(self)
        if wrapped is None:
            raise NotImplementedError
        return await wrapped.step(run, state)

    def check(  # noqa: B027  # not every strategy can be refused
        self, request: Request, capabilities: Capabilities, options: MethodOptions
    ) -> None:
        """Raise ConfigurationError where requests like this one can never be served.

        The prompt of `request` is not read.
        """

    def samples(self, request: Request) -> int:
        """Return how many candidates the strategy chooses among."""
        return request.n

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Accept the fields of a strategy; for the base class, those of any by its `type`."""
        if cls is not Strategy:
            return handler(source)
        by_type = core_schema.tagged_union_schema(
            {
                name: core_schema.no_info_before_validator_function(
                    kind._fields_of, handler.generate_schema(kind)
                )
                for name, kind in STRATEGIES.items()
            },
            discriminator=_type_of,
            custom_error_type="strategy_type",
            custom_error_message=f"the type of a strategy is one of {', '.join(STRATEGIES)}",
        )
        # Strategies hold strategies: pydantic refers to a class within itself by this name.
        name = f"{cls.__module__}.{cls.__qualname__}:{id(cls)}"
        written = core_schema.plain_serializer_function_ser_schema(_as_data)
        return core_schema.no_info_wrap_validator_function(
            _ready_or_read, by_type, ref=name, serialization=written
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the `type` beside the fields."""
        found = handler(schema)
        plain = handler.resolve_ref_schema(found)
        if "properties" in plain:
            plain["properties"]["type"] = {"const": cls.type}
            required = [name for name in plain.get("required", ()) if name != "strategy"]
            plain["required"] = ["type", *(name for name in required if name != "type")]
        return found

    @classmethod
    def _fields_of(cls, value: Mapping[str, object]) -> Mapping[str, object]:
        """Return plain data without the `type`; what wraps no named strategy wraps a single one."""
        fields = getattr(cls, "__dataclass_fields__", {})
        wrapped = {"strategy": {"type": "single"}} if "strategy" in fields else {}
        return wrapped | {name: one for name, one in value.items() if name != "type"}


def wrapped_strategy(strategy: Strategy) -> Strategy | None:
    """Return the strategy that another one wraps, None where it wraps none."""
    wrapped = getattr(strategy, "strategy", None)
    return wrapped if isinstance(wrapped, Strategy) else None


def _type_of(value: object) -> str | None:
    return value.get("type") if isinstance(value, Mapping) else None


def _as_data(strategy: Strategy) -> Mapping[str, object] | str:
    """Return the plain data that reads as a strategy; one that files do not know is described."""
    kind = type(strategy)
    if STRATEGIES.get(getattr(kind, "type", "")) is not kind:
        return repr(strategy)
    fields = TypeAdapter(kind).dump_python(strategy, exclude_defaults=True)
    return {"type": kind.type, **fields}


def _ready_or_read(value: object, read: Callable[[object], Strategy]) -> Strategy:
    return value if isinstance(value, Strategy) else read(value)


@dataclass(frozen=True)
class Single(Strategy):
    """One round of `request.n` candidates, each scored by all methods, in the sampled order.

    Example:
        result = await run_strategy(Single(), request, backend, ["entropy"])
    """

    type = "single"
    can_stream = True

    async def __call__(self, run: Run) -> Result:
        """Sample once and score what comes back."""
        return concluded(await run.assess(await run.sample()))


async def run_strategy(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions | None = None,
) -> Result:
    """Run a strategy for one request.

    Raises ConfigurationError where the backend can never serve it, and what the backend raises.

    Example:
        result = await run_strategy(BestOfN(4), request, backend, ["entropy"])
    """
    metered = MeteredBackend(backend, is_data=request.is_data)
    run = Run(metered, request, tuple(methods), options or MethodOptions())
    check_run(strategy, run)
    model = backend.capabilities.model
    with observed(operation_of(request), model, request) as call:
        call.result = await completed(strategy, run)
    return call.result


async def completed(strategy: Strategy, run: Run) -> Result:
    """Return the strategy's result, whose usage is no less than what the backend has counted.

    A strategy may leave out what an attempt that failed has cost, or what it did not keep.
    """
    if run.request.sampling.get("structured_outputs"):
        check_grammar(strategy, run.request)
    result = await strategy(run)
    return replace(result, usage=result.usage.at_least(run.backend.usage))


def check_grammar(strategy: Strategy, request: Request) -> None:
    """Raise InvalidRequestError for a request with a grammar, which steps cannot follow."""
    if strategy.takes_steps and request.sampling.get("structured_outputs"):
        raise InvalidRequestError(why_no_grammar(strategy, "structured_outputs"))


def why_no_grammar(strategy: Strategy, source: str) -> str:
    """Return why an answer in steps cannot follow the grammar that comes from some option."""
    while wrapped := wrapped_strategy(strategy):
        strategy = wrapped
    return (
        f"{source} and the strategy {type(strategy).__name__} exclude each other: each step is a "
        "request of its own, in which the grammar would begin anew; choose another strategy"
    )


async def run_strategies(
    strategy: Strategy,
    requests: Sequence[Request | UncertaintyError],
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions | None = None,
) -> list[Result]:
    """Run a strategy for many requests at once, and return their results in the same order.

    Where one fails, the others are still finished, and the error's `completed` holds their results.
    In the place of a request may stand the error by which it could not be made.

    Example:
        results = await run_strategies(SelfConsistency(8), requests, backend, ["entropy"])
    """
    runs = (_run_checked(strategy, request, backend, methods, options) for request in requests)
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    completed = {i: out for i, out in enumerate(outcomes) if isinstance(out, Result)}
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            outcome.completed = completed  # type: ignore[attr-defined]  # ours or a foreign error
            raise outcome
    return list(completed.values())


async def _run_checked(
    strategy: Strategy,
    request: Request | UncertaintyError,
    backend: Backend,
    methods: Sequence[str],
    options: MethodOptions | None,
) -> Result:
    if isinstance(request, UncertaintyError):
        raise request
    backend.check(request)
    return await run_strategy(strategy, request, backend, methods, options)


def check_run(strategy: Strategy, run: Run) -> None:
    """Raise ConfigurationError where the run's backend can never serve its request."""
    check_available(run.methods, run.backend.capabilities, run.options)
    strategy.check(run.request, run.backend.capabilities, run.options)


def check_many(
    n: int, method: str, request: Request, capabilities: Capabilities, options: MethodOptions
) -> None:
    """Raise ConfigurationError where n samples that the method orders can never be had.

    Or where several of them would all be the same.
    """
    if n > 1 and request.sampling.get("temperature") == 0:
        raise ConfigurationError(
            f"{n} samples at temperature 0 are all the same; set a temperature above 0"
        )
    check_available([method], capabilities, options)
    if n > capabilities.max_n:
        raise ConfigurationError(f"n is {n}; the backend allows {capabilities.max_n} at most")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise ConfigurationError unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{name} is {described(value)}; allowed are whole numbers from {least}"
        )


def check_number(name: str, value: float) -> None:
    """Raise ConfigurationError unless the value is a finite number from 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(f"{name} is {described(value)}; it must be a number from 0")


def check_function(name: str, value: object) -> None:
    """Raise ConfigurationError unless the value is a function, or None."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} is {described(value)}; it must be a function")


def check_strategy(strategy: object) -> None:
    """Raise ConfigurationError unless a strategy can be wrapped."""
    if not isinstance(strategy, Strategy):
        raise ConfigurationError(
            f"{described(strategy)} is no strategy; wrap one, such as Single()"
        )


def check_orders(method: str) -> None:
    """Raise ConfigurationError unless the method has one score a candidate to order them by."""
    if find_method(method).level != "sequence":
        raise ConfigurationError(f"{method} has no one score to choose by")
