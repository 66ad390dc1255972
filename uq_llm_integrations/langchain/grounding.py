"""How far the answer of a chain rests on the documents that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.faces import ModelFace
from uq_llm_integrations.grounding.grounded_answer import GroundedAnswer
from uq_llm_integrations.grounding.grounding_options import Grounding, Source, as_grounding
from uq_llm_integrations.langchain.callbacks import GROUNDED
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.report.metadata import GROUNDING
from uq_llm_integrations.strategies.abstain import Action

Input = Mapping[str, Any]

_NAMES = {
    "question": ("question", "input"),
    "answer": ("answer",),
    "sources": ("sources", "documents", "context"),
}
"""What each part of the input may be called; LangChain's own chains say `input` and `context`."""


class GroundingRunnable(Runnable[Input, JsonObject]):
    """Adds `grounding` to a mapping of a question, an answer and documents.

    The question is in `question` or `input`, the answer in `answer`, a text or a message, and its
    sources in `sources`, `documents` or `context`: a list of documents, texts or `Source`. `model`
    is a class of this package, or an `UncertaintyModel`; the answer may be any other's. Options
    that are given by name take the place of those of `grounding`. An answer that is not grounded is
    marked, gives way to `abstention_text` in `answer`, or is a HighUncertaintyError, as
    `on_not_grounded` says. Handlers of a run get what was found as a custom event.

    Raises InvalidRequestError for an input without one of the three.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend
        >>> from uq_llm_integrations.langchain import ChatVLLMUncertainty, GroundingRunnable
        >>> chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Oslo"]))
        >>> given = {"question": "Capital?", "answer": "Oslo", "documents": ["It rains."]}
        >>> GroundingRunnable(chat).invoke(given)["grounding"]["is_grounded"]
        False
    """

    def __init__(
        self,
        model: ModelFace | UncertaintyModel,
        grounding: Grounding | None = None,
        *,
        least_support: float | None = None,
        on_not_grounded: Action | None = None,
        abstention_text: str | None = None,
    ) -> None:
        if not isinstance(model, ModelFace | UncertaintyModel):
            raise ConfigurationError(
                f"model is {described(model)}; allowed are this package's models"
            )
        self.model = model.core if isinstance(model, ModelFace) else model
        self.grounding = as_grounding(
            grounding,
            least_support=least_support,
            on_not_grounded=on_not_grounded,
            abstention_text=abstention_text,
        )

    def invoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> JsonObject:
        """Return the input with `grounding`, and with what is decided about the answer."""
        return self._call_with_config(self._grounded, input, config)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> JsonObject:
        """Return what `invoke` does."""
        return await self._acall_with_config(self._agrounded, input, config)

    def _grounded(
        self, given: Input, run_manager: CallbackManagerForChainRun, config: RunnableConfig
    ) -> JsonObject:
        answer, sources, question = _parts(given)
        found = self.model.ground(_text(answer), sources, question, self.grounding)
        dispatch_custom_event(GROUNDED, found.to_dict(), config=config)
        return _output(given, found)

    async def _agrounded(
        self, given: Input, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> JsonObject:
        answer, sources, question = _parts(given)
        found = await self.model.aground(_text(answer), sources, question, self.grounding)
        await adispatch_custom_event(GROUNDED, found.to_dict(), config=config)
        return _output(given, found)


def _parts(given: Input) -> tuple[Any, list[Source], str]:
    """Return the answer, the sources and the question of an input."""
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"the input is {described(given)}; it must be a mapping")
    parts = {}
    for part, names in _NAMES.items():
        present = [name for name in names if name in given]
        if not present:
            raise InvalidRequestError(f"the input has no {' or '.join(names)}")
        parts[part] = given[present[0]]
    return parts["answer"], _sources(parts["sources"]), parts["question"]


def _sources(given: object) -> list[Source]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidRequestError(f"the sources are {described(given)}; give a list of documents")
    return [_source(one) for one in given]


def _source(given: Any) -> Source:
    if isinstance(given, Document):
        name = given.id or given.metadata.get("source")
        return Source(given.page_content, None if name is None else str(name))
    return given if isinstance(given, Source) else Source(given)


def _text(answer: Any) -> Any:
    """Return the text of an answer; of what has none, the answer, which is refused further on."""
    text = getattr(answer, "text", answer)
    return str(text) if isinstance(text, str) else answer  # a message's is no plain text


def _output(given: Input, found: GroundedAnswer) -> JsonObject:
    changed = {GROUNDING: found.to_dict()}
    if found.decision.text is not None:
        changed["answer"] = _replaced(given["answer"], found.decision.text)
    return {**given, **changed}


def _replaced(answer: Any, text: str) -> Any:
    """Return a text in the answer's place, as a message where it was one."""
    if isinstance(answer, BaseMessage):
        return answer.model_copy(update={"content": text})
    return text
