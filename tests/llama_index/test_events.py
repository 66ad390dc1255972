"""What LlamaIndex's event handlers see of calls."""

from typing import Any

import pytest
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import dispatcher
from pydantic import Field

from tests.conftest import eventually
from tests.llama_index.scripted import PERPLEXITY, question, scripted
from uq_llm_integrations import errors, score
from uq_llm_integrations.llama_index import UncertaintyEventHandler, VLLMUncertaintyLLM
from uq_llm_integrations.llama_index.events import Collection


class Names(BaseEventHandler):
    """Notes the names of starts and ends."""

    names: list[str] = Field(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        if (name := type(event).__name__).endswith(("StartEvent", "EndEvent")):
            self.names.append(name)


@pytest.mark.parametrize("verb", ["chat", "stream_chat", "complete", "stream_complete"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_each_call_has_one_start_and_one_end(verb, is_async, registered):
    names = registered(Names())
    given = "?" if "complete" in verb else question()
    answer = getattr(scripted(), f"{'a' * is_async}{verb}")(given)
    answer = await answer if is_async else answer
    if "stream" in verb:
        _ = [part async for part in answer] if is_async else list(answer)
    kind = "LLMChat" if "chat" in verb else "LLMCompletion"
    assert names.names == [f"{kind}StartEvent", f"{kind}EndEvent"]


def test_events_do_not_start_the_engine_and_hold_no_engine_arguments():
    """Async calls send their first event on the caller's event loop."""
    llm = VLLMUncertaintyLLM(model="org/name", temperature=0.5, download_dir="secret")
    payload = llm.to_payload()
    assert (payload["model"], payload["temperature"]) == ("org/name", 0.5)
    assert "secret" not in str(payload)


def test_the_handler_collects_the_scores_of_all_calls(registered):
    handler = registered(UncertaintyEventHandler())
    llm = scripted()
    with instrument_tags({"user": "ann"}):
        llm.chat(question())
    list(llm.stream_complete("?"))
    assert [call.text for call in handler.calls] == ["Paris.", "Paris."]
    assert [call.tags for call in handler.calls] == [{"user": "ann"}, {}]
    assert handler.calls[1].uncertainty["scores"]["perplexity"] == pytest.approx(PERPLEXITY)


def test_models_without_scores_and_failed_calls_are_passed_by(registered):
    handler = registered(UncertaintyEventHandler())
    MockLLM().complete("?")
    failing = scripted(uncertain_when=score("perplexity") > 1.0, on_high_uncertainty="raise")
    with pytest.raises(errors.HighUncertaintyError):
        failing.complete("?")
    assert handler.calls == []


def test_a_collection_has_the_calls_made_while_it_is_open():
    outer, inner, llm = Collection(), Collection(), scripted(["a", "b", "c", "d"])
    llm.complete("?")
    with outer.open():
        llm.complete("?")
        with inner.open():
            llm.complete("?")
    llm.complete("?")
    assert [call.text for call in outer.calls] == ["b", "c"]
    assert [call.text for call in inner.calls] == ["c"]


def test_a_collection_works_where_others_have_replaced_the_handlers(registered):
    """Also where `dispatcher.event_handlers` was emptied since the last query."""
    collection = Collection()
    with collection.open():
        pass
    dispatcher.root.event_handlers.clear()
    with collection.open():
        scripted().complete("?")
    assert len(collection.calls) == 1


@pytest.mark.parametrize("verb", ["stream_chat", "stream_complete"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stream_that_is_closed_early_reports_what_was_drawn(verb, is_async, registered):
    handler = registered(UncertaintyEventHandler())
    given = "?" if "complete" in verb else question()
    answer = getattr(scripted(), f"{'a' * is_async}{verb}")(given)
    if is_async:
        stream = await answer
        await anext(stream), await anext(stream)
        await stream.aclose()
    else:
        next(answer), next(answer)
        answer.close()
    await eventually(lambda: bool(handler.calls))
    (call,) = handler.calls
    assert call.text == "Pa"
    assert call.uncertainty["scores"]["perplexity"] == pytest.approx(PERPLEXITY)
    assert call.uncertainty["usage"]["generated_tokens"] == 2
