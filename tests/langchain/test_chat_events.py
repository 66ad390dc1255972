"""The chat class where LangChain's own machinery drives it: callbacks, events, fallbacks."""

import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from tests.langchain.scripted_chat import call, metadata_of, scripted
from uq_llm_integrations import ScriptedLine, errors, score
from uq_llm_integrations.langchain import UncertaintyCallbackHandler

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LangChainBetaWarning.__module__}.LangChainBetaWarning"
)


class Seen(UncertaintyCallbackHandler):
    def __init__(self):
        super().__init__()
        self.tokens = []

    def on_llm_new_token(self, token, *, chunk=None, **kwargs):
        self.tokens.append(token)


@pytest.mark.parametrize("streaming", [False, True])
def test_callbacks_see_the_scores_of_every_call_of_a_chain(streaming):
    seen = Seen()
    chain = (
        ChatPromptTemplate([("user", "{q}?")]) | scripted(streaming=streaming) | StrOutputParser()
    )
    assert chain.batch([{"q": "a"}, {"q": "b"}], config={"callbacks": [seen]}) == ["Paris."] * 2
    assert [one.text for one in seen.calls] == ["Paris.", "Paris."]
    assert all(one.uncertainty["scores"]["entropy"] for one in seen.calls)
    assert len(seen.tokens) == (12 if streaming else 0)


async def test_callbacks_see_each_token_of_a_stream_once():
    seen = Seen()
    async for _ in scripted().astream("?", config={"callbacks": [seen]}):
        pass
    assert seen.tokens == list("Paris.")
    assert len(seen.calls) == 1


async def test_events_of_a_chain():
    chain = scripted(token_scores=True) | StrOutputParser()
    events = [event async for event in chain.astream_events("?", version="v2")]
    chunks = [e["data"]["chunk"] for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(chunk.content for chunk in chunks) == "Paris."
    assert all(metadata_of(chunk)["by_token"]["entropy"] for chunk in chunks)
    (end,) = (e for e in events if e["event"] == "on_chat_model_end")
    assert metadata_of(end["data"]["output"])["scores"]["entropy"]
    assert len(metadata_of(end["data"]["output"])["by_token"]["token"]) == 6


async def test_the_event_protocols_message_has_the_scores_of_all_tokens():
    chat = scripted(token_scores=True, logprobs=True)
    stream = await chat.astream_events("?", version="v3")
    for message in (await stream.output, chat.stream_events("?", version="v3").output):
        assert message.text == "Paris."
        assert len(metadata_of(message)["by_token"]["token"]) == 6
        assert len(message.response_metadata["logprobs"]["content"]) == 6
        assert metadata_of(message)["scores"]["entropy"]
        assert message.usage_metadata["output_tokens"] == 6
        assert message.id.startswith("lc_run-")


def test_the_event_protocol_separates_reasoning_text_and_calls():
    said = "<think>Hm.</think>Let me see." + call("add", a=1)
    tool = {"title": "add", "description": "Add.", "properties": {"a": {"type": "integer"}}}
    chat = scripted(said, reasoning_parser="think").bind_tools([tool])
    message = chat.stream_events("?", version="v3").output
    kinds = {block["type"]: block for block in message.content_blocks}
    assert kinds["reasoning"]["reasoning"] == "Hm."
    assert kinds["text"]["text"] == "Let me see."
    assert kinds["tool_call"]["args"] == {"a": 1}


def test_an_uncertain_answer_falls_back_to_another_model():
    unsure = scripted(
        ScriptedLine("unsure", 0.5),
        uncertain_when=score("mean_nll") > 0.5,
        on_high_uncertainty="raise",
    )
    chain = unsure.with_fallbacks(
        [scripted("The bigger one knows.")], exceptions_to_handle=(errors.HighUncertaintyError,)
    )
    assert chain.invoke("?").content == "The bigger one knows."
