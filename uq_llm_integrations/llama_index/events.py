"""The scores of every model call, collected from LlamaIndex's events."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.dispatcher import active_instrument_tags, instrument_tags
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from pydantic import Field

from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import uncertainty_metadata

_TAG = "uq_queries"


@dataclass(frozen=True)
class ScoredCall:
    """One answer of a model and how sure it was of it."""

    text: str
    uncertainty: dict[str, Any]
    span_id: str | None
    tags: dict[str, Any]


class StreamClosedEvent(BaseEvent):
    """A stream was closed, or its reader cancelled, before its end: what was drawn of it."""

    text: str
    uncertainty: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return "StreamClosedEvent"


class GroundingEvent(BaseEvent):
    """How far the answer of a query rests on its sources."""

    text: str
    grounding: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return "GroundingEvent"


def report_grounding(grounding: dict[str, Any]) -> None:
    """Tell the event handlers how far an answer rests on its sources."""
    event = GroundingEvent(text=grounding["answer"], grounding=grounding)
    get_dispatcher().event(event)


def report_closed(result: Result) -> None:
    """Tell the event handlers what was drawn of a stream that nobody reads to its end."""
    metadata = uncertainty_metadata(result)
    get_dispatcher().event(StreamClosedEvent(text=result.text, uncertainty=metadata))


class UncertaintyEventHandler(BaseEventHandler):
    """Collects the scored answers of all calls while it is registered.

    Of a stream that is closed before its end, it has what was drawn, with the usage.
    `get_dispatcher().add_event_handler(handler)` registers it; `handler.calls` has the answers, and
    `groundings` has how far those of queries rest on their sources.
    """

    calls: list[ScoredCall] = Field(default_factory=list)
    groundings: list[dict[str, Any]] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return "UncertaintyEventHandler"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Keep the answer of a finished call with its scores; other models are passed by."""
        if isinstance(event, GroundingEvent):
            self.groundings.append(event.grounding)
        elif (call := scored_call(event)) is not None:
            self.calls.append(call)


def scored_call(event: BaseEvent) -> ScoredCall | None:
    """Return the scored answer of an event, None where it has none."""
    match event:
        case LLMChatEndEvent(response=response) if response is not None:
            text = response.message.content or ""
        case LLMCompletionEndEvent(response=response) if response is not None:
            text = response.text
        case StreamClosedEvent():
            return ScoredCall(event.text, event.uncertainty, event.span_id, dict(event.tags))
        case _:
            return None
    uncertainty = response.additional_kwargs.get("uncertainty")
    if uncertainty is None:
        return None
    return ScoredCall(text, uncertainty, event.span_id, dict(event.tags))


NOTHING_SAID = "Empty Response"
"""What LlamaIndex puts in the place of a text that is empty."""


_LABEL = re.compile(r"^Response \d+:", re.MULTILINE)
"""What LlamaIndex puts before each part of an accumulated answer."""


def said_by(calls: Sequence[ScoredCall], answer: str) -> Sequence[ScoredCall]:
    """Return the calls that said the answer, in their order.

    That is the last one that said it as it stands, or its object; where none did, all whose texts
    are parts of it, as those of `accumulate` are, and make up most of it; and else none. That
    nothing was found is said by none, unless one's text is empty.
    """
    texts = [call.text.strip() or NOTHING_SAID for call in calls]
    whole = [call for call, text in zip(calls, texts, strict=True) if text == answer.strip()]
    parts = [call for call, text in zip(calls, texts, strict=True) if _is_part(text, answer)]
    if whole or (whole := [call for call in calls if _is_object(call, answer)]):
        return whole[-1:]
    said = {text for text in texts if _is_part(text, answer)}
    letters = sum(answer.count(text) * _letters(text) for text in said)
    return parts if 2 * letters > _letters(_LABEL.sub("", answer)) else ()


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _is_object(call: ScoredCall, answer: str) -> bool:
    """Return whether a call gave the object that the answer is, as its text or by a tool's call."""
    given = _object(answer)
    if not given:
        return False
    if not call.text.strip():
        return bool(call.uncertainty.get("tool_calls"))
    return bool(_object(call.text).keys() & given.keys())


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_part(text: str, answer: str) -> bool:
    """Return whether a text is in the answer, and not within a word of it."""
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", answer) is not None


class Collection:
    """The scored answers of one query, whatever else runs at the same time.

    `unscored` counts the answers of other providers' models, `model` is the one of this package
    that was called last, and `grounding` says how far the answer rests on its sources.
    """

    def __init__(self) -> None:
        self.calls: list[ScoredCall] = []
        self.unscored = 0
        self.model: UncertaintyModel | None = None
        self.grounding: dict[str, Any] | None = None
        self._name = next(_names)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Collect the calls that are made while this is open, in this task and those it starts.

        It can be opened again, for what is left of a stream.
        """
        tags = active_instrument_tags.get()
        within = (*tags.get(_TAG, ()), self._name)
        _DISTRIBUTOR.begin(self)
        try:
            with instrument_tags({**tags, _TAG: within}):
                yield
        finally:
            _DISTRIBUTOR.end(self)

    @property
    def name(self) -> int:
        """What tags the events of this query."""
        return self._name


def note_model(model: UncertaintyModel) -> UncertaintyModel:
    """Note for the queries within which a model is called that it is, and return it."""
    _DISTRIBUTOR.note(active_instrument_tags.get().get(_TAG, ()), model)
    return model


def _is_answer(event: BaseEvent) -> bool:
    ends = LLMChatEndEvent | LLMCompletionEndEvent
    return isinstance(event, ends) and event.response is not None


class _Distributor(BaseEventHandler):
    """Gives each scored answer to the queries within which it was requested."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, Collection] = {}
        self._lock = Lock()

    @classmethod
    def class_name(cls) -> str:
        return "UncertaintyDistributor"

    def begin(self, collection: Collection) -> None:
        handlers = get_dispatcher().event_handlers
        with self._lock:
            if not any(one is self for one in handlers):  # others may have put theirs in its place
                handlers.append(self)
            self._open[collection.name] = collection

    def end(self, collection: Collection) -> None:
        with self._lock:
            self._open.pop(collection.name, None)

    def note(self, names: Sequence[int], model: UncertaintyModel) -> None:
        for collection in filter(None, map(self._open.get, names)):
            collection.model = model

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if not (names := event.tags.get(_TAG, ())) or not _is_answer(event):
            return
        call = scored_call(event)
        for collection in filter(None, map(self._open.get, names)):
            if call:
                collection.calls.append(call)
            else:
                collection.unscored += 1


_names = itertools.count()
_DISTRIBUTOR = _Distributor()
