"""LangChain's chat class, on a backend that answers from a script."""

import asyncio
import json
import math

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.load import dumpd, dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import add_usage
from langchain_core.rate_limiters import InMemoryRateLimiter

from tests.conftest import Meeting
from tests.langchain.scripted_chat import metadata_of, scripted, whole
from uq_llm_integrations import (
    BestOfN,
    ChatVLLMUncertainty,
    Retry,
    ScriptedBackend,
    ScriptedLine,
    SelfConsistency,
    Single,
    Stepwise,
    errors,
    score,
    token_max,
)

PERPLEXITY = 1 / 0.9  # of the scripted probability
LOGPROB = math.log(0.9)
SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)
UNCERTAIN = score("mean_nll") > 0.5


def test_an_answer_is_a_message_with_its_uncertainty():
    message = scripted().invoke("What is the capital of France?")
    assert message.content == "Paris."
    assert metadata_of(message)["scores"]["perplexity"] == pytest.approx(PERPLEXITY)
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.response_metadata["model_name"] == "scripted"
    assert message.response_metadata["model_provider"] == "uq_llm_integrations"
    assert "by_token" not in metadata_of(message)
    json.dumps(message.response_metadata, allow_nan=False)
    assert "not_implemented" not in dumps(message)


def test_messages_become_a_conversation():
    chat = scripted()
    chat.invoke([SystemMessage("Be brief."), HumanMessage("Hi", name="ann"), ("ai", "Hello")])
    (request,) = chat.backend.requests
    assert request.conversation.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "Hello"},
    )


def test_scores_of_an_earlier_answer_never_reach_the_prompt():
    chat = scripted(token_scores=True, logprobs=True)
    answer = chat.invoke("?")
    chat.invoke([HumanMessage("?"), answer, HumanMessage("Sure?")])
    prompt = bytes(chat.backend.requests[-1].prompt_ids).decode()
    assert prompt == "user: ?\nassistant: Paris.\nuser: Sure?"


def test_the_first_candidate_has_the_usage_of_the_call_and_the_others_none():
    """Callbacks read the first one, and tracers add up all of them."""
    answer = scripted("one", "three").generate([[HumanMessage("?")]], n=2)
    best, other = (one.message.usage_metadata for one in answer.generations[0])
    assert best == {
        "input_tokens": 1,
        "output_tokens": 3 + 5,
        "total_tokens": 9,
        "input_token_details": {"cache_read": 0},
        "output_token_details": {"chosen": 3},
    }
    assert add_usage(best, other) == best


def test_the_best_candidate_comes_first_and_none_is_lost():
    chat = scripted(UNSURE, SURE, strategy=BestOfN(2))
    (generations,) = chat.generate([[HumanMessage("?")]]).generations
    assert [one.text for one in generations] == ["sure", "unsure"]
    assert all("scores" in metadata_of(one.message) for one in generations)


LOSERS = {
    "best of n": (BestOfN(2), [UNSURE, SURE], len("unsure") + len("sure")),
    "a vote": (SelfConsistency(3, settle=None), ["x", "yy", "x"], 4),
    "a retry": (Retry(Single(), UNCERTAIN), [UNSURE, SURE], len("unsure") + len("sure")),
    "steps": (Stepwise(2), [ScriptedLine("one", 0.5), "two"], 6),
    "a judge": (Single(), ["sure", "True"], None),
}


@pytest.mark.parametrize("name", LOSERS)
def test_usage_counts_what_was_generated_and_apart_from_it_what_was_chosen(name):
    strategy, script, generated = LOSERS[name]
    options = {"methods": ["mc_entropy"]} if generated is None else {"temperature": 0.7}
    chat = scripted(*script, strategy=strategy, **options)
    streamed = whole(chat.stream("?"))
    chat = scripted(*script, strategy=strategy, **options)
    with get_usage_metadata_callback() as counted:
        message = chat.invoke("?")
    usage, own = message.usage_metadata, metadata_of(message)["usage"]
    assert usage["output_tokens"] == own["generated_tokens"]
    assert generated in (None, usage["output_tokens"])
    assert usage["output_token_details"] == {"chosen": len(message.content)}
    assert streamed.usage_metadata == usage == counted.usage_metadata["scripted"]
    assert message.response_metadata["token_usage"] == {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "completion_tokens_details": {"chosen_tokens": len(message.content)},
    }


def test_a_stream_adds_up_to_what_invoke_returns():
    chat = scripted(token_scores=True, logprobs=True, top_logprobs=2)
    streamed, invoked = whole(chat.stream("?")), chat.invoke("?")
    for message in (streamed, invoked):
        metadata_of(message)["usage"].pop("seconds")
    assert streamed.content == invoked.content
    assert streamed.usage_metadata == invoked.usage_metadata
    assert metadata_of(streamed) == metadata_of(invoked)
    assert streamed.response_metadata["logprobs"] == invoked.response_metadata["logprobs"]


def test_each_chunk_has_the_scores_of_its_tokens_and_the_last_those_of_all():
    chunks = list(scripted(token_scores=True).stream("?"))
    assert [metadata_of(chunk)["by_token"]["token"] for chunk in chunks] == [[c] for c in "Paris."]
    assert ["scores" in metadata_of(chunk) for chunk in chunks] == [False] * 5 + [True]
    assert [chunk.chunk_position for chunk in chunks] == [None] * 5 + ["last"]
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * 5 + [True]


def test_a_stream_of_steps_has_a_chunk_for_each():
    chat = ChatVLLMUncertainty(
        backend=ScriptedBackend({"?": ["one\n"], "?one\n": ["two"]}),
        strategy=Stepwise(1),
        token_scores=True,
    )
    chunks = list(chat.stream("?"))
    assert [chunk.content for chunk in chunks] == ["one\n", "two"]
    assert [len(metadata_of(one)["by_token"]["token"]) for one in chunks] == [4, 3]
    streamed, invoked = whole(chunks), chat.invoke("?")
    assert streamed.usage_metadata == invoked.usage_metadata
    assert metadata_of(streamed)["scores"] == metadata_of(invoked)["scores"]
    with pytest.raises(errors.InvalidRequestError, match="a schema and the strategy Stepwise"):
        chat.with_structured_output({"title": "A", "type": "object"}).invoke("?")


def test_logprobs_have_the_shape_of_openais():
    message = scripted("a").invoke("?", logprobs=True)
    (entry,) = message.response_metadata["logprobs"]["content"]
    assert entry == {
        "token": "a",
        "bytes": [97],
        "logprob": pytest.approx(LOGPROB),
        "top_logprobs": [],
    }


def test_reasoning_is_returned_and_scored_apart():
    chat = scripted("<think>France, so...</think>Paris.", reasoning_parser="think")
    message = chat.invoke("?")
    assert message.content == "Paris."
    assert message.content_blocks == [
        {"type": "reasoning", "reasoning": "France, so..."},
        {"type": "text", "text": "Paris."},
    ]
    assert metadata_of(message)["answer"]["tokens"] == [28, 34]
    assert metadata_of(message)["reasoning"]["tokens"] == [7, 20]
    streamed = whole(chat.stream("?"))
    assert streamed.content_blocks == message.content_blocks


async def test_all_async_twins():
    chat = scripted()
    assert (await chat.ainvoke("?")).content == "Paris."
    assert [one.content for one in await chat.abatch(["?", "??"])] == ["Paris.", "Paris."]
    assert "".join([chunk.content async for chunk in chat.astream("?")]) == "Paris."


async def test_async_calls_run_at_once():
    chat = ChatVLLMUncertainty(backend=Meeting(["Paris."], 10))
    answers = await asyncio.gather(*(chat.ainvoke("?") for _ in range(10)))
    assert [one.content for one in answers] == ["Paris."] * 10


def test_any_parameter_can_be_given_here_at_the_call_or_bound():
    chat = scripted(top_p=0.5, temperature=0.3, stop=["A"])
    chat.bind(top_p=0.7).invoke("?", seed=1, stop=["B"], max_tokens=5)
    (request,) = chat.backend.requests
    assert request.sampling == {
        "top_p": 0.7,
        "seed": 1,
        "temperature": 0.3,
        "max_tokens": 5,
        "stop": ["A", "B"],
    }


def test_methods_can_be_chosen_at_the_call():
    assert list(metadata_of(scripted().invoke("?", methods=("entropy",)))["scores"]) == ["entropy"]


@pytest.mark.parametrize("place", ["bound", "at the call"])
@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_strategy_and_condition_can_be_chosen_for_a_call(verb, place):
    chat, options = scripted(UNSURE, SURE), {"strategy": BestOfN(2), "uncertain_when": UNCERTAIN}
    bound, given = (chat.bind(**options), {}) if place == "bound" else (chat, options)
    message = bound.invoke("?", **given) if verb == "invoke" else whole(bound.stream("?", **given))
    assert message.content == "sure"
    assert metadata_of(message)["uncertain"] is False
    assert chat.invoke("?").content == "unsure"


def test_a_stream_can_be_cut_off_where_it_becomes_uncertain():
    chat = scripted(
        ScriptedLine("a long and doubtful answer", 0.5), stop_if=token_max("entropy") > 2
    )
    message = whole(chat.stream("?"))
    assert message.content == "a"
    assert message.response_metadata["finish_reason"] == "early_stop"
    assert metadata_of(message)["sampling"] == "stopped_early"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"nonsense": 1}, "unknown option"),
        ({"model": "other"}, "unknown option"),
        ({"methods": ("nonsense",)}, "unknown uncertainty method"),
        ({"tool_choice": {"odd": 1}}, "tool_choice"),
        ({"response_format": {"type": "odd"}}, "response_format"),
    ],
)
def test_calls_that_mean_nothing_are_refused(arguments, error):
    with pytest.raises(errors.UncertaintyError, match=error):
        scripted().invoke("?", **arguments)


def test_a_stream_of_several_answers_is_refused():
    with pytest.raises(errors.InvalidRequestError, match="a stream has one answer"):
        list(scripted().stream("?", n=2))
    with pytest.raises(errors.ConfigurationError, match="streaming=True"):
        scripted(n=2, streaming=True)


def test_an_uncertain_answer_is_annotated_replaced_or_refused():
    annotated = scripted(UNSURE, uncertain_when=UNCERTAIN).invoke("?")
    assert (annotated.content, metadata_of(annotated)["uncertain"]) == ("unsure", True)
    abstaining = scripted(UNSURE, uncertain_when=UNCERTAIN, on_high_uncertainty="abstain")
    for message in (abstaining.invoke("?"), whole(abstaining.stream("?"))):
        assert message.content == abstaining.abstention_text
        assert metadata_of(message)["original_text"] == "unsure"
    with pytest.raises(errors.HighUncertaintyError) as caught:
        scripted(UNSURE, uncertain_when=UNCERTAIN, on_high_uncertainty="raise").invoke("?")
    assert caught.value.result.text == "unsure"


def test_a_cached_answer_keeps_its_scores_and_its_usage():
    chat = scripted("one", "two", cache=InMemoryCache())
    first, second = chat.invoke("?"), chat.invoke("?")
    assert len(chat.backend.requests) == 1
    assert metadata_of(second) == metadata_of(first)
    assert second.usage_metadata["total_tokens"] == first.usage_metadata["total_tokens"]


def test_a_cache_has_a_key_for_all_that_an_answer_depends_on():
    chat = scripted("1", "2", "3", "4", "5", cache=InMemoryCache())
    calls = [{}, {"seed": 1}, {"methods": ("entropy",)}, {"stop": ["x"]}, {"top_logprobs": 1}]
    assert [chat.invoke("?", **call).content for call in calls] == ["1", "2", "3", "4", "5"]
    assert [chat.invoke("?", **call).content for call in calls] == ["1", "2", "3", "4", "5"]
    other = chat.model_copy(update={"uncertain_when": UNCERTAIN})
    assert other.invoke("?").content == "1" and len(chat.backend.requests) == 6


def test_a_rate_limiter_is_consulted_before_each_call():
    limiter = InMemoryRateLimiter(requests_per_second=0.001, check_every_n_seconds=0.01)
    limiter.available_tokens = 1
    chat = scripted(rate_limiter=limiter)
    chat.invoke("?")
    assert limiter.acquire(blocking=False) is False


def test_an_engine_that_failed_is_tried_again():
    chat = scripted(errors.EngineDeadError("gone"), "Paris.", max_retries=1)
    assert chat.invoke("?").content == "Paris."
    with pytest.raises(errors.EngineDeadError):
        scripted(errors.EngineDeadError("gone"), "Paris.").invoke("?")


def test_an_answer_that_takes_too_long_is_an_error():
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris."], delay=5), timeout=0.05)
    with pytest.raises(errors.EngineTimeoutError, match=r"0\.05 seconds"):
        chat.invoke("?")
    with pytest.raises(errors.EngineTimeoutError, match=r"0\.05 seconds"):
        list(chat.stream("?"))


class StartRecorder(BaseCallbackHandler):
    """Keeps what tracers get of a call when it starts."""

    def on_chat_model_start(self, serialized, messages, *, metadata, **others):
        self.metadata = metadata


def test_what_tracers_and_agents_read_of_the_model():
    chat, tracer = scripted(temperature=0.5, max_tokens=9), StartRecorder()
    chat.invoke("?", stop=["x"], config={"callbacks": [tracer]})
    # LangChain itself adds ls_integration.
    params = {name: one for name, one in tracer.metadata.items() if name.startswith("ls_")}
    assert {name: one for name, one in params.items() if name != "ls_integration"} == {
        "ls_provider": "vllm",
        "ls_model_name": "scripted",
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["x"],
    }
    assert chat.profile["max_input_tokens"] == 4096
    assert chat.profile["tool_calling"] is True
    named = ChatVLLMUncertainty(model="org/name", max_model_len=64)
    assert named.profile["max_input_tokens"] == 64
    assert "uq-llm-integrations" in chat.metadata["lc_versions"]
    assert dumpd(chat)["kwargs"]["backend"]["type"] == "not_implemented"


def test_the_class_drops_in_where_a_remote_one_was():
    chat = scripted(api_key="secret", timeout=60, max_retries=2, streaming=True)
    assert "secret" not in repr(chat)
    assert isinstance(chat.invoke("?"), AIMessage)
