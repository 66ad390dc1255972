"""A request's way through the API server: marked, observed, stripped of its columns, answered."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from tests.backends.chat_families import family
from tests.backends.server.serving.test_observed import as_tensors, sent
from uq_llm_integrations import InvalidRequestError
from uq_llm_integrations.backends.server.serving import front, hooks
from uq_llm_integrations.backends.server.serving.marks import MARK, WIDTH
from uq_llm_integrations.backends.token_statistics import column

PROMPT = [10, 11, 12]


def completion(**fields) -> CompletionRequest:
    return CompletionRequest(model="m", prompt=PROMPT, max_tokens=3, **fields)


def chat(**fields) -> ChatCompletionRequest:
    return ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "?"}], **fields)


def state_of(request, *, prompt_ids=PROMPT, **params) -> SimpleNamespace:
    """Register a request's one sample, as vLLM does before it is sent to the engine."""
    own = SamplingParams(extra_args=dict(request.vllm_xargs or {}), **params)
    processor = SimpleNamespace(
        num_logprobs=own.num_logprobs, num_prompt_logprobs=own.prompt_logprobs
    )
    kind = RequestOutputKind.CUMULATIVE
    state = SimpleNamespace(logprobs_processor=processor, output_kind=kind)
    state.sent = SimpleNamespace(sampling_params=own, prompt_token_ids=prompt_ids)
    return hooks.new_requests(lambda *_, **__: state, None, None, state.sent)


def step(state, tokens, prompt=None) -> SimpleNamespace:
    """Let the engine's output of some tokens arrive, and return what vLLM then reads."""
    output = SimpleNamespace(
        new_logprobs=sent(tokens), new_prompt_logprobs_tensors=prompt and as_tensors(sent(prompt))
    )
    return hooks.engine_outputs(lambda _, given: given, state.logprobs_processor, output)


def output_of(state, tokens, finish_reason="stop") -> RequestOutput:
    """Return vLLM's output of a request with one sample."""
    own = hooks.sample_outputs(
        lambda *_: CompletionOutput(0, "", tokens, None, None, finish_reason=finish_reason), state
    )
    made = RequestOutput("r", None, PROMPT, None, [own], finish_reason is not None)
    return hooks.request_outputs(lambda *_: made, state)


@pytest.mark.parametrize("make", [completion, chat])
def test_a_request_is_marked_unless_it_wants_nothing(make):
    plain, declined = make(), make(uncertainty=False)
    assert front.mark(plain) is None and front.mark(declined) is None
    assert plain.vllm_xargs == {MARK: [-1, False]} and declined.vllm_xargs is None


def test_no_caller_can_set_the_mark_itself():
    forged = completion(uncertainty=False, vllm_xargs={MARK: [0], "own": 1})
    assert front.mark(forged) is None
    assert forged.vllm_xargs == {"own": 1}


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (completion(uncertainty="all"), "uncertainty is 'all'"),
        (completion(uncertainty_from=-1), "uncertainty_from is -1"),
        (chat(uncertainty_from=1), "/v1/completions"),
    ],
)
async def test_what_is_not_allowed_is_answered_by_name(request_, named):
    server = SimpleNamespace(create_error_response=lambda message: message)
    assert named in await hooks.bodies(None, server, request_)


async def test_what_is_allowed_goes_on_with_its_tools_as_they_were_written():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]

    async def original(self, request, raw_request):
        return request.vllm_xargs

    async def body():
        return {"tools": tools}

    raw = SimpleNamespace(json=body)
    assert await hooks.bodies(original, None, chat(tools=tools), raw) == {MARK: [-1, False]}


def test_an_answer_has_the_rows_of_its_tokens_and_the_caller_what_was_asked_for():
    request = completion(uncertainty="rows")
    front.mark(request)
    state = state_of(request)
    params = state.sent.sampling_params
    assert params.logprobs == 0 and params.extra_args == {MARK: [-1, True]}
    assert step(state, [4, 5]).new_logprobs is None  # none were asked for
    step(state, [6])
    found = output_of(state, [4, 5, 6])
    (own,) = found.outputs
    assert column(getattr(own, front.ROWS).rows, "logprob").tolist() == [-4.0, -5.0, -6.0]
    answers = front.answers_of(request, "m")
    front.see_completions([found], request, answers)
    choice = SimpleNamespace(index=0, logprobs=None, finish_reason="stop", text="", token_ids=None)
    response = front.finished(SimpleNamespace(choices=[choice]), answers)
    assert response.choices[0].uncertainty["exact"] is True
    assert len(response.choices[0].uncertainty["entropy"]) == 3


def test_log_probabilities_that_were_asked_for_stay_without_the_columns():
    request = completion()
    front.mark(request)
    state = state_of(request, logprobs=2)
    assert state.sent.sampling_params.extra_args == {MARK: [-1, False]}
    left = step(state, [4]).new_logprobs
    assert left.logprobs.shape == (1, 3)
    np.testing.assert_array_equal(left.logprobs, sent([4], has_columns=False).logprobs)


def test_a_prompt_is_scored_from_a_token_on():
    request = completion(uncertainty_from=1)
    front.mark(request)
    state = state_of(request)
    params = state.sent.sampling_params
    assert params.prompt_logprobs == WIDTH and params.skip_reading_prefix_cache is False
    left = step(state, [4], prompt=PROMPT[1:])
    assert left.new_prompt_logprobs_tensors is None
    found = output_of(state, [4])
    assert column(getattr(found, front.ROWS).rows, "logprob").tolist() == [-11.0, -12.0]


def test_a_prompt_with_all_log_probabilities_has_no_room_for_statistics():
    request = completion(uncertainty_from=1)
    front.mark(request)
    state = state_of(request, prompt_logprobs=-1)
    assert state.sent.sampling_params.prompt_logprobs == -1
    scored = getattr(output_of(state, []), front.ROWS)
    assert scored.why_inexact and np.isnan(scored.rows).all()


def test_a_token_that_the_prompt_does_not_have_is_refused():
    from vllm.exceptions import VLLMClientError

    request = completion(uncertainty_from=4)
    front.mark(request)
    with pytest.raises(VLLMClientError, match="the prompt has 3 tokens"):
        state_of(request)


def test_a_request_without_a_mark_is_left_alone():
    request = completion(uncertainty=False)
    front.mark(request)
    state = state_of(request)
    assert state.sent.sampling_params.logprobs is None
    found = output_of(state, [4])
    assert not hasattr(found, front.ROWS) and not hasattr(found.outputs[0], front.ROWS)
    assert front.answers_of(request, "m") is None


def test_outputs_that_vllm_joins_have_their_rows_joined():
    request = completion()
    front.mark(request)
    state = state_of(request)
    state.output_kind = RequestOutputKind.DELTA
    step(state, [4])
    first = output_of(state, [4], None)
    step(state, [5])
    hooks.merged_outputs(lambda *_: None, first, output_of(state, [5]), True)
    rows = getattr(first.outputs[0], front.ROWS).rows
    assert column(rows, "token").tolist() == [4, 5]


async def test_a_stream_of_a_completion_has_them_too():
    request = completion(stream=True)
    front.mark(request)
    state = state_of(request)
    state.output_kind = RequestOutputKind.DELTA
    serving = SimpleNamespace(models=SimpleNamespace(model_name=lambda: "m"))

    async def results():
        for token, reason in ((4, None), (5, "stop")):
            step(state, [token])
            yield 0, output_of(state, [token], reason)

    async def original(self, request, inputs, seen):
        async for _, output in seen:
            (own,) = output.outputs
            choice = {"index": 0, "text": "x", "finish_reason": own.finish_reason}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n"

    lines = hooks.completion_streams(original, serving, request, None, results())
    found = [line async for line in lines]
    assert [line.count('"uncertainty"') for line in found] == [1, 1]
    assert '"first":1' in found[1].replace(" ", "") and '"scores"' in found[1]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_of_a_chat_has_them_too(is_stream):
    request = chat()
    front.mark(request)
    state = state_of(request)
    if is_stream:
        state.output_kind = RequestOutputKind.DELTA
    serving = SimpleNamespace(models=SimpleNamespace(model_name=lambda: "m"))

    async def results():
        step(state, [4])
        yield output_of(state, [4])

    async def whole(self, request, seen):
        async for _ in seen:
            choice = SimpleNamespace(index=0, logprobs=None, finish_reason="stop", token_ids=None)
        return SimpleNamespace(choices=[choice])

    async def streamed(self, request, seen):
        async for _ in seen:
            yield 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'

    if is_stream:
        found = [one async for one in hooks.chat_streams(streamed, serving, request, results())]
        assert '"uncertainty"' in found[0]
    else:
        response = await hooks.chat_answers(whole, serving, request, results())
        assert response.choices[0].uncertainty["exact"] is True


def test_a_step_computes_columns_for_those_who_want_them_alone():
    marked = SamplingParams(extra_args={MARK: [-1, False]})
    runner = SimpleNamespace(
        requests={"a": SimpleNamespace(sampling_params=marked)},
        input_batch=SimpleNamespace(req_ids=["a"]),
    )
    hooks.v1_samples(lambda self: hooks.STEP.samples, runner)
    assert hooks.v1_samples(lambda self: hooks.STEP.samples, runner).is_wanted
    assert not hooks.STEP.samples.is_wanted  # once the step is over


def test_of_the_cache_only_what_precedes_the_first_scored_token_is_used():
    asked = []

    class Cache:
        coordinator = type(
            "Coordinator", (), {"find_longest_cache_hit": lambda self, hashes, most: most}
        )()

    def original(self, request):
        asked.append(self.coordinator.find_longest_cache_hit([], 100))

    for extra, most in (({MARK: [32, False]}, 31), ({MARK: [-1, False]}, 100), (None, 100)):
        request = SimpleNamespace(sampling_params=SamplingParams(extra_args=extra))
        hooks.prefix_cache(original, Cache(), request)
        assert asked.pop() == most


WRITTEN = [{"role": "user", "content": "Hi <|im_end|> there"}]


async def rendered(prompt, **values):
    """Let vLLM render messages, and return the prompt that it goes on with."""
    tokenizer = family("ChatML")
    renderer = SimpleNamespace(get_tokenizer=lambda: tokenizer)
    params = SimpleNamespace(chat_template_kwargs=values, chat_template=None)

    async def original(self, messages, params):
        return messages, prompt

    found = await hooks.conversations(original, renderer, WRITTEN, params)
    return tokenizer, found[1]


async def test_messages_are_encoded_so_that_names_of_control_tokens_are_text():
    tokenizer, found = await rendered({"prompt": "", "prompt_token_ids": [1]})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found["prompt_token_ids"].count(end) == 1  # the template's own


@pytest.mark.parametrize(
    ("prompt", "values", "why"),
    [
        ({"prompt_token_ids": [1], "multi_modal_data": {}}, {}, "pictures"),
        ({"prompt_token_ids": [1]}, {"add_generation_prompt": False}, "add_generation_prompt"),
    ],
)
async def test_what_cannot_be_encoded_so_is_refused_with_such_names(prompt, values, why):
    from vllm.exceptions import VLLMClientError

    with pytest.raises(VLLMClientError, match=why):
        await rendered(prompt, **values)


def test_errors_of_this_package_are_what_vllm_answers_with_400():
    from vllm.exceptions import VLLMClientError

    with pytest.raises(VLLMClientError, match="no"), hooks._answered_with_400():
        raise InvalidRequestError("no")
