"""The way of a chat request, as both frameworks' classes go it, and streams that are cut off."""

import pytest

from uq_llm_integrations import errors
from uq_llm_integrations.backends.scripted import ScriptedBackend, ScriptedLine
from uq_llm_integrations.chat.exchange import Chatting, ScoredReply, Turn
from uq_llm_integrations.chat_settings import ChatSettings
from uq_llm_integrations.faces import OnVLLM
from uq_llm_integrations.records import Conversation, EarlyStop, Request
from uq_llm_integrations.strategies.best_of_n import BestOfN, Single
from uq_llm_integrations.strategies.quantities import agreement, score, token_max, worst_window
from uq_llm_integrations.strategies.streaming import astream

ASKED = Conversation(({"role": "user", "content": "?"},))
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
UNSURE = ScriptedLine("long and doubtful", 0.5)


class Chat(ChatSettings, OnVLLM):
    """No framework's class."""


def chatting(*script, turn=Turn(ASKED), **settings) -> Chatting:  # noqa: B008  # it is frozen
    return Chatting(Chat(backend=ScriptedBackend(list(script)), **settings), turn)


async def reply(chat: Chatting) -> ScoredReply:
    _, (first, *_) = await chat.replies()
    return first


async def streamed(chat: Chatting) -> list:
    return [piece async for piece in chat.pieces()]


async def test_a_reply_comes_with_its_uncertainty():
    scored = await reply(chatting("Paris."))
    assert scored.reply.content == "Paris."
    assert scored.uncertainty["scores"]["perplexity"] == pytest.approx(0.1053605)
    assert scored.logprobs is None


async def test_replies_come_the_best_first():
    _, replies = await chatting(UNSURE, "sure", strategy=BestOfN(2)).replies()
    assert [one.reply.content for one in replies] == ["sure", UNSURE.text]


async def test_pieces_add_up_to_the_whole():
    chat = chatting("<think>Hm.</think>Paris.", reasoning_parser="think", token_scores=True)
    *pieces, last = await streamed(chat)
    assert all(piece.whole is None for piece in pieces)
    everything = [*pieces, last]
    assert "".join(piece.part.content for piece in everything) == last.whole.reply.content
    assert "".join(piece.part.reasoning for piece in everything) == last.whole.reply.reasoning
    tokens = [token for one in everything for token in one.uncertainty["by_token"]["token"]]
    assert tokens == last.whole.uncertainty["by_token"]["token"]


async def test_live_pieces_have_exact_statistics_and_others_are_not_asked_for_them():
    live = chatting("Paris.", token_scores=True)
    assert all("entropy" in one.uncertainty["by_token"] for one in await streamed(live))
    plain = chatting("Paris.")
    await streamed(plain)
    assert [c._bound._backend.requests[0].live for c in (live, plain)] == [True, False]


async def test_a_streamed_call_has_the_same_id_in_the_end():
    turn = Turn(Conversation(ASKED.messages, (TOOL,)))
    *_, last = await streamed(chatting(CALL, turn=turn))
    (shown,), (read,) = last.part.calls, last.whole.reply.tool_calls
    assert shown.id == read.id == last.whole.uncertainty["tool_calls"][0]["id"]


async def test_tools_that_may_not_be_called_are_not_told_of():
    turn = Turn(Conversation(ASKED.messages, (TOOL,)), tool_choice="none")
    chat = chatting(CALL, turn=turn)
    assert (await reply(chat)).reply.content == CALL
    assert chat._bound._backend.requests[0].conversation.tools == ()


async def test_an_abstention_calls_no_tool_and_keeps_what_was_said():
    turn = Turn(Conversation(ASKED.messages, (TOOL,)))
    settings = {"uncertain_when": score("perplexity") > 0.5, "on_high_uncertainty": "abstain"}
    scored = await reply(
        chatting(ScriptedLine(CALL, 0.5), turn=turn, abstention_text="No.", **settings)
    )
    assert (scored.reply.content, scored.reply.tool_calls) == ("No.", ())
    assert scored.uncertainty["original_text"] == CALL


async def test_a_prompt_is_gone_on_from_outside_the_template():
    chat = chatting("Paris.", turn=Turn(prompt="The capital is"))
    assert (await reply(chat)).reply.content == "Paris."
    (request,) = chat._bound._backend.requests
    assert bytes(request.prompt_ids) == b"The capital is" and not request.chat


async def test_a_turn_with_a_schema_and_tools_is_refused():
    with pytest.raises(errors.InvalidRequestError, match="not both at once"):
        chatting("x", turn=Turn(Conversation(ASKED.messages, (TOOL,)), schema={}))


async def test_closing_a_stream_of_pieces_ends_it():
    pieces = chatting("Paris.").pieces()
    await anext(pieces)
    await pieces.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


REQUEST = Request((63,))


async def drawn(line, stop_if=None, strategy=Single(), **request):  # noqa: B008  # it is frozen
    asked = Request((63,), **request)
    stream = astream(strategy, asked, ScriptedBackend([line]), ("perplexity",), stop_if)
    return [piece async for piece in stream]


async def test_a_stream_is_cut_off_where_its_tokens_become_uncertain():
    pieces = await drawn(UNSURE, worst_window("entropy", 4) > 2)
    assert "".join(piece.text for piece in pieces) == "l"
    result = pieces[-1].result
    assert (result.text, result.candidate.finish_reason) == ("l", "early_stop")
    assert (result.decision.action, result.decision.is_uncertain) == ("stopped_early", True)
    assert result.usage.generated_tokens == 1


async def test_a_stream_that_is_certain_enough_comes_to_its_end():
    pieces = await drawn("Paris.", token_max("entropy") > 2)
    assert "".join(piece.text for piece in pieces) == "Paris."
    assert pieces[-1].result.decision.action == "accepted"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stop_if": score("semantic_entropy") > 1}, "only the tokens so far"),
        ({"stop_if": agreement() < 0.5}, "there is only one"),
        ({"stop_if": score("entropy") > 1, "strategy": BestOfN(2)}, "only in the end"),
    ],
)
async def test_what_cannot_be_known_while_streaming_is_refused(arguments, error):
    with pytest.raises(errors.ConfigurationError, match=error):
        await drawn("Paris.", **arguments)


async def test_what_the_engine_stopped_is_told_in_a_stream_too():
    pieces = await drawn(UNSURE, early_stop=EarlyStop(1.0, window=4))
    assert pieces[-1].result.candidate.finish_reason == "early_stop"
    assert "".join(piece.text for piece in pieces) == "long"
