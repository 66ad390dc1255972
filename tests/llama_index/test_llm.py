"""LlamaIndex's class, on a backend that answers from a script."""

import asyncio
import json

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock
from llama_index.core.prompts import PromptTemplate

from tests.conftest import Meeting, eventually
from tests.llama_index.scripted import LOGPROB, PERPLEXITY, prompts, question, scripted, tokens_of
from uq_llm_integrations import BestOfN, ScriptedBackend, ScriptedLine, Stepwise, errors, score
from uq_llm_integrations.llama_index import HuggingFaceUncertaintyLLM, VLLMUncertaintyLLM

UNCERTAIN = score("perplexity") > 1.05


def blocking_verbs(llm: VLLMUncertaintyLLM) -> list[str]:
    return [
        llm.chat(question()).message.content,
        llm.complete("?").text,
        list(llm.stream_chat(question()))[-1].message.content,
        list(llm.stream_complete("?"))[-1].text,
    ]


async def async_verbs(llm: VLLMUncertaintyLLM) -> list[str]:
    return [
        (await llm.achat(question())).message.content,
        (await llm.acomplete("?")).text,
        [part async for part in await llm.astream_chat(question())][-1].message.content,
        [part async for part in await llm.astream_complete("?")][-1].text,
    ]


async def test_all_eight_verbs_answer():
    assert blocking_verbs(scripted()) == ["Paris."] * 4
    assert await async_verbs(scripted()) == ["Paris."] * 4


@pytest.mark.parametrize("verb", ["achat", "acomplete", "astream_chat", "astream_complete"])
async def test_calls_of_one_loop_run_at_once(verb):
    llm = VLLMUncertaintyLLM(backend=Meeting(["Paris."], 20))

    async def send():
        answer = await getattr(llm, verb)("?" if "complete" in verb else question())
        return [part async for part in answer] if "stream" in verb else answer

    answers = await asyncio.gather(*(send() for _ in range(20)))
    assert len(answers) == len(llm.backend.requests) == 20


def test_scores_are_on_the_response_and_never_on_the_message():
    response = scripted(token_scores=True).chat(question())
    uncertainty = response.additional_kwargs["uncertainty"]
    assert uncertainty["scores"]["perplexity"] == pytest.approx(PERPLEXITY)
    assert "".join(uncertainty["by_token"]["token"]) == "Paris."
    assert response.message.additional_kwargs == {}
    assert response.additional_kwargs["total_tokens"] == 7
    assert response.additional_kwargs["finish_reason"] == "stop"
    json.dumps([response.additional_kwargs, response.raw], allow_nan=False)


def test_scores_of_an_earlier_answer_never_reach_the_prompt():
    llm = scripted(token_scores=True, logprobs=True)
    answer = llm.chat(question()).message
    llm.chat([*question(), answer, *question("Sure?")])
    assert prompts(llm)[-1] == "user: ?\nassistant: Paris.\nuser: Sure?"


def test_a_stream_grows_and_each_response_has_the_scores_of_what_it_adds():
    parts = list(scripted(token_scores=True).stream_chat(question()))
    assert [part.delta for part in parts] == list("Paris.")
    assert [part.message.content for part in parts][:2] == ["P", "Pa"]
    *added, whole = tokens_of(parts)
    assert added == [["P"], ["a"], ["r"], ["i"], ["s"]]
    assert whole == list("Paris.")
    scored = ["scores" in part.additional_kwargs["uncertainty"] for part in parts]
    assert scored == [False] * 5 + [True]


def test_a_stream_of_steps_has_a_response_for_each():
    llm = scripted({"?": ["one\n"], "?one\n": ["two"]}, strategy=Stepwise(1))
    for stream in (llm.stream_chat(question()), llm.stream_complete("?")):
        assert [part.delta for part in stream] == ["one\n", "two"]


def test_usage_counts_what_was_generated_and_apart_from_it_what_was_chosen():
    llm = scripted([ScriptedLine("unsure", 0.5), "sure"], strategy=BestOfN(2), temperature=0.7)
    *_, last = llm.stream_complete("?")
    for response in (llm.chat(question()), llm.complete("?"), last):
        usage = response.raw["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1, 6 + 4)
        assert usage["completion_tokens_details"] == {"chosen_tokens": 4}
        assert usage.items() <= response.additional_kwargs.items()


@pytest.mark.parametrize("verb", ["chat", "complete"])
def test_the_last_response_of_a_stream_returns_what_a_call_returns(verb):
    llm, prompt = scripted(token_scores=True, top_logprobs=2), "?"
    given = question() if verb == "chat" else prompt
    *_, last = getattr(llm, f"stream_{verb}")(given)
    whole = getattr(llm, verb)(given)
    for response in (last, whole):
        response.delta = None
        response.additional_kwargs["uncertainty"]["usage"].pop("seconds")
    assert last == whole


def test_a_stream_can_be_cut_off_by_its_class_and_by_a_call():
    given = {"stop_if": score("maxprob") > 0.25}
    for stream in (
        scripted(**given).stream_complete("?"),
        scripted().stream_complete("?", **given),
    ):
        *_, last = stream
        assert last.text == "Par"
        metadata = last.additional_kwargs["uncertainty"]
        assert (metadata["sampling"], metadata["condition"]) == ("stopped_early", "maxprob > 0.25")


async def test_a_stream_that_is_left_ends_the_work_on_it():
    class Counted(ScriptedBackend):
        closed = 0

        async def stream(self, request):
            try:
                async for piece in super().stream(request):
                    yield piece
            finally:
                self.closed += 1

    backend = Counted(["Paris."])
    llm = VLLMUncertaintyLLM(backend=backend)
    stream = llm.stream_complete("?")
    next(stream)
    stream.close()
    stream = await llm.astream_chat(question())
    await anext(stream)
    await stream.aclose()
    del stream
    await eventually(lambda: backend.closed == 2)


def test_the_sampled_token_is_first_at_every_position():
    response = scripted(top_logprobs=2).complete("?")
    assert [position[0].token for position in response.logprobs] == list("Paris.")
    assert response.logprobs[0][0].logprob == pytest.approx(LOGPROB)
    assert scripted().complete("?").logprobs is None


def test_a_streams_log_probabilities_are_those_of_what_it_adds():
    parts = list(scripted(logprobs=True).stream_complete("?"))
    tokens = ["".join(position[0].token for position in part.logprobs) for part in parts]
    assert tokens == ["P", "a", "r", "i", "s", "Paris."]


def test_the_best_candidate_answers_and_the_others_are_in_raw():
    llm = scripted([ScriptedLine("unsure", 0.5), ScriptedLine("sure", 0.9)], strategy=BestOfN(2))
    response = llm.complete("?")
    assert response.text == "sure"
    assert [one["text"] for one in response.raw["candidates"]] == ["sure", "unsure"]
    assert all("scores" in one["uncertainty"] for one in response.raw["candidates"])


def test_a_stream_has_one_answer():
    with pytest.raises(errors.InvalidRequestError, match="n is 2"):
        list(scripted(n=2).stream_complete("?"))


def test_metadata_come_from_the_backend():
    metadata = scripted(max_tokens=99).metadata
    assert (metadata.context_window, metadata.num_output) == (4096, 99)
    assert (metadata.is_chat_model, metadata.is_function_calling_model) == (True, True)
    assert metadata.model_name == "scripted"


def test_metadata_do_not_start_an_engine_whose_arguments_hold_them():
    llm = VLLMUncertaintyLLM(model="org/name", max_model_len=512)
    assert llm.metadata.context_window == 512


def test_settings_can_be_given_with_each_call():
    llm = scripted(stop=["A"])
    llm.complete("?", temperature=0.3, seed=4, stop=["B"])
    llm.complete("?")
    first, second = (request.sampling for request in llm.backend.requests)
    assert first == {"seed": 4, "temperature": 0.3, "stop": ["A", "B"]}
    assert second == {"stop": ["A"]}
    scores = llm.complete("?", methods=("maxprob",)).additional_kwargs["uncertainty"]["scores"]
    assert set(scores) == {"maxprob"}


@pytest.mark.parametrize("verb", ["chat", "complete"])
def test_arguments_that_mean_nothing_are_refused(verb):
    with pytest.raises(errors.InvalidRequestError, match="unknown option"):
        getattr(scripted(), verb)(question() if verb == "chat" else "?", nonsense=1)


def test_a_formatted_prompt_stays_outside_the_template():
    llm = scripted()
    llm.complete("hello")
    llm.complete("user: hello", formatted=True)
    templated, raw = llm.backend.requests
    assert [one["content"] for one in templated.conversation.messages] == ["hello"]
    assert (raw.conversation, raw.chat, raw.text) == (None, False, "user: hello")


def test_without_a_template_llama_index_writes_the_prompts():
    llm = scripted(chat_template=False, completion_to_prompt=lambda text: f"Q: {text}")
    assert not llm.metadata.is_chat_model and not llm.metadata.is_function_calling_model
    llm.complete("hello")
    llm.complete("hello", formatted=True)
    llm.chat(question("hello"))
    assert prompts(llm) == ["Q: hello", "hello", "user: hello\nassistant: "]
    assert not any(request.chat for request in llm.backend.requests)


async def test_templates_of_prompts_and_a_system_prompt_are_used():
    llm, template = scripted(system_prompt="Be brief."), PromptTemplate("Where is {what}?")
    assert llm.predict(template, what="Oslo") == "Paris."
    assert await llm.apredict(template, what="Oslo") == "Paris."
    assert "".join(llm.stream(template, what="Oslo")) == "Paris."
    assert set(prompts(llm)) == {"system: Be brief.\nuser: Where is Oslo?"}


@pytest.mark.parametrize("verb", ["chat", "stream_chat"])
def test_an_abstention_keeps_what_would_have_been_said(verb):
    llm = scripted(
        uncertain_when=UNCERTAIN, on_high_uncertainty="abstain", abstention_text="No idea."
    )
    answer = getattr(llm, verb)(question())
    last = answer if verb == "chat" else list(answer)[-1]
    assert last.message.content == "No idea."
    metadata = last.additional_kwargs["uncertainty"]
    assert (metadata["decision"], metadata["original_text"]) == ("abstained", "Paris.")


@pytest.mark.parametrize("verb", ["complete", "stream_complete"])
def test_too_uncertain_an_answer_can_be_noted_or_raised(verb):
    llm = scripted(uncertain_when=UNCERTAIN)
    answer = getattr(llm, verb)("?")
    last = answer if verb == "complete" else list(answer)[-1]
    assert last.additional_kwargs["uncertainty"]["uncertain"] is True
    raising = scripted(uncertain_when=UNCERTAIN, on_high_uncertainty="raise")
    with pytest.raises(errors.HighUncertaintyError) as caught:
        list(getattr(raising, verb)("?"))
    assert caught.value.result.text == "Paris."


def test_reasoning_is_a_block_of_its_own():
    llm = scripted(["<think>so</think>Fine."], reasoning_parser="qwen3")
    response = llm.chat(question())
    assert response.message.blocks == [ThinkingBlock(content="so"), TextBlock(text="Fine.")]
    assert response.message.content == "Fine."
    assert set(response.additional_kwargs["uncertainty"]) >= {"reasoning", "answer"}


def test_a_stream_returns_reasoning_where_agents_look_for_it():
    llm = scripted(["<think>so</think>Fine."], reasoning_parser="qwen3")
    parts = list(llm.stream_chat(question()))
    thought = "".join(part.additional_kwargs.get("thinking_delta", "") for part in parts)
    assert (thought, "".join(part.delta for part in parts)) == ("so", "Fine.")


def test_an_empty_prompt_is_refused():
    with pytest.raises(errors.EmptyPromptError):
        scripted().complete("", formatted=True)


def test_it_can_be_the_default_llm():
    Settings.llm = llm = scripted()
    assert Settings.llm is llm


def test_a_system_message_comes_first_in_the_conversation():
    llm = scripted()
    llm.chat([ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), *question()])
    assert prompts(llm) == ["system: Be brief.\nuser: ?"]


def test_the_classes_differ_in_the_backend_they_make_for_themselves():
    with pytest.raises(errors.ConfigurationError, match="give a `model` or a `backend`"):
        HuggingFaceUncertaintyLLM()
    assert HuggingFaceUncertaintyLLM.class_name() == "HuggingFaceUncertaintyLLM"
