"""A turn of a chat, whole and as a stream, with the scores of its parts."""

import pytest

from uq_llm_integrations import (
    BestOfN,
    Conversation,
    EarlyStop,
    Retry,
    ScriptedBackend,
    ScriptedLine,
    Stepwise,
    UncertaintyModel,
    agreement,
    errors,
    score,
    token_max,
    worst_window,
)
from uq_llm_integrations.chat.reply import ReplyPiece, ScoredReply, Turn

MESSAGES = Conversation(({"role": "user", "content": "?"},))
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
TURN = Turn(MESSAGES)
UNSURE = ScriptedLine("long and doubtful", 0.5)


def model_of(*script, **options) -> UncertaintyModel:
    return UncertaintyModel(ScriptedBackend(list(script)), **options)


async def reply(model: UncertaintyModel, turn: Turn = TURN) -> ScoredReply:
    return (await model.achat(turn)).replies[0]


async def pieces_of(model: UncertaintyModel, turn: Turn = TURN) -> list[ReplyPiece]:
    return [piece async for piece in model.astream(turn)]


async def test_a_reply_comes_with_its_uncertainty():
    scored = await reply(model_of("Paris."))
    assert scored.reply.content == "Paris."
    assert scored.uncertainty["scores"]["perplexity"] == pytest.approx(1 / 0.9)
    assert scored.logprobs is None


async def test_replies_come_the_best_first():
    answer = await model_of(UNSURE, "sure", strategy=BestOfN(2)).achat(TURN)
    assert [one.reply.content for one in answer.replies] == ["sure", UNSURE.text]


async def test_pieces_add_up_to_the_whole():
    model = model_of("<think>Hm.</think>Paris.", reasoning_parser="think", token_scores=True)
    *pieces, last = await pieces_of(model)
    assert all(piece.whole is None for piece in pieces)
    everything = [*pieces, last]
    assert "".join(piece.part.content for piece in everything) == last.whole.reply.content
    assert "".join(piece.part.reasoning for piece in everything) == last.whole.reply.reasoning
    tokens = [token for one in everything for token in one.uncertainty["by_token"]["token"]]
    assert tokens == last.whole.uncertainty["by_token"]["token"]


async def test_exact_statistics_of_pieces_are_requested_only_where_they_are_shown():
    live, plain = model_of("Paris.", token_scores=True), model_of("Paris.")
    assert all("entropy" in one.uncertainty["by_token"] for one in await pieces_of(live))
    await pieces_of(plain)
    assert [model.backend.requests[0].live for model in (live, plain)] == [True, False]


async def test_a_streamed_call_has_the_same_id_in_the_end():
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)))
    *_, last = await pieces_of(model_of(CALL), turn)
    (shown,), (read,) = last.part.calls, last.whole.reply.tool_calls
    assert shown.id == read.id == last.whole.uncertainty["tool_calls"][0]["id"]


async def test_tools_that_may_not_be_called_are_not_described():
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)), tool_choice="none")
    model = model_of(CALL)
    assert (await reply(model, turn)).reply.content == CALL
    assert model.backend.requests[0].conversation.tools == ()


async def test_an_abstention_calls_no_tool_and_keeps_what_was_said():
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)))
    settings = {"uncertain_when": score("mean_nll") > 0.5, "on_high_uncertainty": "abstain"}
    model = model_of(ScriptedLine(CALL, 0.5), abstention_text="No.", **settings)
    scored = await reply(model, turn)
    assert (scored.reply.content, scored.reply.tool_calls) == ("No.", ())
    assert scored.uncertainty["original_text"] == CALL


async def test_a_prompt_is_continued_outside_the_template():
    model = model_of("Paris.")
    assert (await reply(model, Turn(prompt="The capital is"))).reply.content == "Paris."
    (request,) = model.backend.requests
    assert bytes(request.prompt_ids) == b"The capital is" and not request.chat


async def test_a_turn_with_a_schema_and_tools_has_a_call_or_an_object():
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)), schema={})
    model = model_of(CALL, '{"city": "Paris"}')
    called, said = await reply(model, turn), await reply(model, turn)
    assert [one.name for one in called.reply.tool_calls] == ["add"]
    assert "fields" not in called.uncertainty and "fields" in called.uncertainty["tool_calls"][0]
    assert said.reply.content == '{"city": "Paris"}' and not said.reply.tool_calls
    assert set(said.uncertainty["fields"]) == {"city"}


@pytest.mark.parametrize("text", [CALL + CALL, f"Well. {CALL}\n{CALL}"])
async def test_one_call_at_most_is_read_whole_and_in_pieces(text):
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)), parallel_tool_calls=False)
    scored, pieces = await reply(model_of(text), turn), await pieces_of(model_of(text), turn)
    assert len(scored.reply.tool_calls) == len(scored.uncertainty["tool_calls"]) == 1
    assert len([call for piece in pieces for call in piece.part.calls if call.name]) == 1
    assert len(pieces[-1].whole.reply.tool_calls) == 1


BEGUN = ({"role": "user", "content": "?"}, {"role": "assistant", "content": "It is"})


async def test_a_reply_goes_on_with_a_begun_one():
    model = model_of(" Paris.")
    scored = await reply(model, Turn(Conversation(BEGUN, continues=True)))
    assert scored.reply.content == " Paris."
    assert model.backend.requests[0].conversation.continues


CALLING = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (BEGUN[:1], "has the role 'user'"),
        ((BEGUN[0], CALLING), "calls tools"),
    ],
)
async def test_only_a_text_of_the_models_own_is_continued(messages, why):
    with pytest.raises(errors.InvalidRequestError, match=why):
        await reply(model_of("x"), Turn(Conversation(messages, continues=True)))


@pytest.mark.parametrize("name", ["continue_final_message", "parallel_tool_calls"])
def test_a_flag_is_true_or_false(name):
    with pytest.raises(errors.InvalidRequestError, match=f"{name} is 'yes'"):
        model_of("x").chat("?", **{name: "yes"})


@pytest.mark.parametrize(
    ("turn", "named"),
    [
        (Turn(MESSAGES, schema={}), "a schema"),
        (Turn(Conversation(MESSAGES.messages, (TOOL,)), tool_choice="add"), "tool_choice='add'"),
        (Turn(Conversation(MESSAGES.messages, (TOOL,)), tool_choice="required"), "required"),
    ],
)
async def test_steps_follow_no_grammar(turn, named):
    model = model_of("{}", strategy=Retry(Stepwise(1), "entropy > 9"))
    for read in (reply, pieces_of):
        with pytest.raises(errors.InvalidRequestError, match=f"{named}.* and .* Stepwise"):
            await read(model, turn)
    assert not model.backend.requests


async def test_a_tool_may_be_called_in_steps():
    model = UncertaintyModel(ScriptedBackend([CALL]), strategy=Stepwise(1))
    scored = await reply(model, Turn(Conversation(MESSAGES.messages, (TOOL,))))
    assert [one.name for one in scored.reply.tool_calls] == ["add"]


async def test_closing_a_stream_of_pieces_ends_it():
    pieces = model_of("Paris.").astream(TURN)
    await anext(pieces)
    await pieces.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def streamed(line, stop_if=None, **options):
    return await pieces_of(model_of(line, stop_if=stop_if, methods=["perplexity"], **options))


async def test_a_stream_is_cut_off_where_its_tokens_become_uncertain():
    pieces = await streamed(UNSURE, worst_window("entropy", 4) > 2)
    assert "".join(piece.part.content for piece in pieces) == "l"
    result = pieces[-1].result
    assert (result.text, result.candidate.finish_reason) == ("l", "early_stop")
    assert (result.sampling_end.kind, result.decision.is_uncertain) == ("stopped_early", True)
    assert result.usage.generated_tokens == 1


async def test_a_stream_that_is_certain_enough_comes_to_its_end():
    pieces = await streamed("Paris.", token_max("entropy") > 2)
    assert "".join(piece.part.content for piece in pieces) == "Paris."
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
        await streamed("Paris.", **arguments)


async def test_a_stream_shows_where_the_engine_stopped_it():
    pieces = await streamed(UNSURE, early_stop=EarlyStop(1.0, window=4))
    assert pieces[-1].result.candidate.finish_reason == "early_stop"
    assert "".join(piece.part.content for piece in pieces) == "long"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
DOUBTED = {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "abstain"}


@pytest.mark.parametrize("schema", [SCHEMA, {}])
async def test_no_object_can_say_that_the_model_abstains(schema):
    model = model_of('{"a": 1}', **DOUBTED)
    for ask in (reply, pieces_of):
        with pytest.raises(errors.HighUncertaintyError) as caught:
            await ask(model, Turn(MESSAGES, schema=schema))
        error = caught.value
        assert (error.text, error.result.candidate.text) == ('{"a": 1}', '{"a": 1}')
        assert set(error.uncertainty["fields"]) == {"a"}


async def test_an_abstention_can_be_left_to_the_caller():
    turn = Turn(MESSAGES, schema=SCHEMA, raises_abstention=False)
    scored = await reply(model_of('{"a": 1}', abstention_text="No.", **DOUBTED), turn)
    assert (scored.reply.content, scored.uncertainty["original_text"]) == ("No.", '{"a": 1}')


async def test_a_schema_that_is_none_is_refused():
    with pytest.raises(errors.InvalidRequestError, match="the schema is 3"):
        await reply(model_of("x"), Turn(MESSAGES, schema=3))


@pytest.mark.parametrize("size", range(1, len(CALL) + 1))
@pytest.mark.parametrize("choice", ["auto", "required", "add"])
async def test_a_stream_ends_with_what_a_whole_reply_says(size, choice):
    turn = Turn(Conversation(MESSAGES.messages, (TOOL,)), tool_choice=choice)
    model = model_of(CALL, max_tokens=size)
    pieces, read = await pieces_of(model, turn), (await reply(model, turn)).reply
    assert "".join(piece.part.content for piece in pieces) == read.content
    calls = [call for piece in pieces for call in piece.part.calls]
    assert [(one.name, one.arguments) for one in calls] == [
        (one.name, one.arguments) for one in read.tool_calls
    ]
    if choice != "auto":
        assert len(read.tool_calls) == 1 and not read.content
