"""One call of a model as others see it: a span, metrics and one log record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.records import Request, Result
from uq_llm_integrations.telemetry import instruments, request_ids
from uq_llm_integrations.telemetry.instruments import record
from uq_llm_integrations.telemetry.span_attributes import (
    answered,
    asked,
    common_attributes,
    is_captured,
    known_scores,
    request_attributes,
    result_attributes,
    unknown_scores,
)

logger = logging.getLogger(__name__)


class Piece(Protocol):
    """A part of a streamed answer."""

    @property
    def result(self) -> Result | None:
        """The whole answer, with its last part."""


def operation_of(request: Request) -> str:
    """Return what the conventions call a request: `chat` or `text_completion`."""
    return "chat" if request.chat or request.conversation else "text_completion"


class ObservedCall:
    """A call from its begin on. `result` is set once there is one.

    `facts` has, by their names, numbers that are no method's score, for the span and the log.
    """

    def __init__(self, operation: str, model: str, request: Request, **more: Any) -> None:
        self.result: Result | None = None
        self.facts: dict[str, float] = {}
        self._request, self._operation, self._model = request, operation, model
        self._common = common_attributes(operation, model)
        self._id = request_ids.current() or request_ids.CallId()
        self._started = time.perf_counter()
        self._has_piece = False
        self._span: Any = None
        if tracer := instruments.tracer():
            self._span = _span(tracer, f"{operation} {model}")
        if self._span is not None and self._span.is_recording():
            own = {"uq_llm.request.id": self._id.text, **request_attributes(request), **more}
            self._span.set_attributes({**self._common, **own})

    @contextmanager
    def active(self) -> Iterator[None]:
        """Have its id and its span be the current ones."""
        with request_ids.active(self._id), _current(self._span):
            yield

    def see(self, piece: Piece) -> None:
        """Note a part of a streamed answer."""
        if not self._has_piece:
            self._has_piece = True
            record(instruments.FIRST_CHUNK, self._seconds, self._common)
        self.result = piece.result or self.result

    def closing(self, on_closed: Callable[[Result], None] | None) -> Callable[[Result], None]:
        """Return what keeps the result of a stream that is closed early, and hands it on."""

        def closed(result: Result) -> None:
            self.result = result
            if on_closed is not None:
                on_closed(result)

        return closed

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def finish(self, error: BaseException | None = None) -> None:
        """End it, by the error that it has raised. A stream that was closed has raised none."""
        if isinstance(error, HighUncertaintyError):
            self.result = self.result or error.result
        failed = {} if error is None else {"error.type": type(error).__name__}
        if isinstance(error, GeneratorExit):
            failed = {}
        self._measure(failed)
        with self.active():
            self._log(failed)
        self._end_span(failed)

    def _measure(self, failed: dict[str, str]) -> None:
        record(instruments.DURATION, self._seconds, {**self._common, **failed})
        if (result := self.result) is None:
            return
        usage, decision, common = result.usage, result.decision, self._common
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.generated_tokens)):
            record(instruments.TOKENS, tokens, {**common, "gen_ai.token.type": kind})
        for name, value in known_scores(result).items():
            record(instruments.UNCERTAINTY, value, {**common, "uq_llm.method": name})
        for name in unknown_scores(result):
            record(instruments.UNKNOWN, 1, {**common, "uq_llm.method": name})
        what = {"uq_llm.decision": decision.action, "uq_llm.uncertain": decision.is_uncertain}
        record(instruments.ANSWERS, 1, {**common, **what})
        if usage.saved_tokens:
            record(instruments.SAVED, usage.saved_tokens, common)

    def _log(self, failed: dict[str, str]) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        about: dict[str, Any] = {
            "request_id": self._id.text,
            "operation": self._operation,
            "model": self._model,
            "duration_seconds": self._seconds,
            "error_type": failed.get("error.type"),
        }
        is_captured_here = is_captured("event")
        if is_captured_here:
            about["input_messages"] = asked(self._request)
        if (result := self.result) is not None:
            about |= _logged(result)
            about |= {"output_messages": answered(result)} if is_captured_here else {}
        about |= self.facts
        logger.info("%s of %s ended", self._operation, self._model, extra=about)

    def _end_span(self, failed: dict[str, str]) -> None:
        span = self._span
        if span is None or not span.is_recording():
            return
        if self.result is not None:
            span.set_attributes(result_attributes(self.result))
        span.set_attributes({f"uq_llm.{name}": fact for name, fact in self.facts.items()})
        if failed:
            from opentelemetry.trace import StatusCode

            span.set_attributes(failed)
            span.set_status(StatusCode.ERROR)  # no message: it may say what was asked
        span.end()


def _logged(result: Result) -> dict[str, Any]:
    usage, decision = result.usage, result.decision
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.generated_tokens,
        "saved_tokens": usage.saved_tokens,
        "decision": decision.action,
        "uncertain": decision.is_uncertain,
        "confidence": result.confidence,
        "scores": dict(known_scores(result)),
        "unknown_scores": unknown_scores(result),
    }


def _span(tracer: Any, name: str) -> Any:
    from opentelemetry.trace import SpanKind

    return tracer.start_span(name, kind=SpanKind.CLIENT)


def _current(span: Any) -> Any:
    if span is None:
        return nullcontext()
    from opentelemetry.trace import use_span

    return use_span(span, record_exception=False, set_status_on_exception=False)


@contextmanager
def observed(operation: str, model: str, request: Request) -> Iterator[ObservedCall]:
    """Observe a call from here to the end of the block, within one task.

    Example:
        with observed("chat", "org/name", request) as call:
            call.result = await completed(strategy, run)
    """
    call = ObservedCall(operation, model, request)
    try:
        with call.active():
            yield call
    except BaseException as error:
        call.finish(error)
        raise
    call.finish()
