"""The client of a server with the plugin: what it sends, and what becomes of what comes back."""

import asyncio
import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from pydantic import SecretStr

from uq_llm_integrations import (
    Conversation,
    EarlyStop,
    EngineClosedError,
    EngineError,
    InvalidRequestError,
    MethodUnavailableError,
    PromptTooLongError,
    Request,
    SampleMonitor,
    ScriptedBackend,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.backends.capabilities import SAMPLING_PARAMETERS
from uq_llm_integrations.records import Inspection
from uq_llm_integrations.testing import Fault
from uq_llm_integrations.testing.scripted_answers import END

PROMPT = tuple(b"The capital of France is")


def test_traces_are_exact_and_have_the_stop_token(serve, connect):
    backend, scripted = connect(serve(["Paris"])), ScriptedBackend(["Paris\0"])
    (found,) = backend.run(backend.generate(Request(PROMPT)))
    (due,) = scripted.run(scripted.generate(Request(PROMPT)))
    assert (found.text, found.token_ids, found.finish_reason) == ("Paris", (*b"Paris", END), "stop")
    for name in ("logprob", "rank", "entropy", "varentropy", "mean_logprob", "root_sum", "support"):
        np.testing.assert_allclose(getattr(found.trace, name), getattr(due.trace, name), atol=1e-12)
    assert found.cached_tokens == 3


def test_samples_that_nothing_ends_early_are_one_request(serve, connect):
    server = serve(["Paris", "Lyon", "Nice"])
    backend = connect(server)
    found = backend.run(backend.generate(Request(PROMPT, n=3, sampling={"seed": 7})))
    assert [one.text for one in found] == ["Paris", "Lyon", "Nice"]
    (body,) = server.bodies()
    assert (body["n"], body["seed"], body["prompt"]) == (3, 7, list(PROMPT))


@pytest.mark.parametrize("temperature", [0, 1e-6])
def test_greedy_samples_are_requests_of_their_own(serve, connect, temperature):
    server = serve(["Paris"])
    backend = connect(server)
    request = Request(PROMPT, n=2, sampling={"temperature": temperature})
    found = backend.run(backend.generate(request))  # vLLM refuses n=2 in one of them
    assert [one.text for one in found] == ["Paris"] * 2
    assert [body["n"] for body in server.bodies()] == [1, 1]


def test_samples_that_are_watched_have_a_seed_and_a_stream_each(serve, connect):
    server = serve(["Paris", "Lyon"])
    backend = connect(server)
    monitor = SampleMonitor(hopeless=lambda logprobs, finished: False)
    request = Request(PROMPT, n=2, sampling={"seed": 7})
    found = backend.run(backend.generate(request, monitor))
    assert sorted(one.text for one in found) == ["Lyon", "Paris"]
    assert sorted(body["seed"] for body in server.bodies()) == [7, 8]


def test_what_is_not_said_is_vllms_default_and_not_the_models(serve, connect):
    server = serve()
    backend = connect(server)
    backend.run(backend.generate(Request(PROMPT)))
    (body,) = server.bodies()
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 1.0, 0)
    assert body["max_tokens"] == 4096 - len(PROMPT)
    assert "logprobs" not in body and body["uncertainty"] == "rows"


VALUES = {
    "temperature": 0.5,
    "seed": 3,
    "stop": ["END"],
    "logit_bias": {5: 1.0},
    "extra_args": {"rate": 0.5},
    "structured_outputs": {"choice": ["yes", "no"]},
    "repetition_detection": {"max_pattern_size": 3},
    "stop_token_ids": [4],
    "allowed_token_ids": [4, 5],
    "bad_words": ["no"],
    "max_tokens": 9,
    "skip_reading_prefix_cache": None,
}


@pytest.mark.parametrize("name", sorted(SAMPLING_PARAMETERS))
def test_every_sampling_parameter_is_sent_or_refused_by_name(serve, connect, name):
    server = serve()
    backend = connect(server)
    if name == "skip_reading_prefix_cache":
        with pytest.raises(InvalidRequestError, match=name):
            backend.run(backend.generate(Request(PROMPT, sampling={name: True})))
        return
    backend.run(backend.generate(Request(PROMPT, sampling={name: VALUES.get(name, 1)})))
    (body,) = server.bodies()
    sent = {"extra_args": "vllm_xargs"}.get(name, name)
    due = {"logit_bias": {"5": 1.0}}.get(name, VALUES.get(name, 1))
    assert body[sent] == due


@pytest.mark.parametrize("value", [{"a": {"b": 1}}, {"a": None}, {"a": b"x"}, {"a": [[1]]}])
def test_extra_arguments_that_no_server_takes_are_refused(serve, connect, value):
    backend = connect(serve())
    with pytest.raises(InvalidRequestError, match="extra_args"):
        backend.run(backend.generate(Request(PROMPT, sampling={"extra_args": value})))


def test_a_json_schema_allows_little_white_space(serve, connect):
    server = serve()
    backend = connect(server)
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}}
    for given in (schema, {"type": "array", "uniqueItems": True}):
        sampling = {"structured_outputs": {"json": given}}
        backend.run(backend.generate(Request(PROMPT, sampling=sampling)))
    tag, whole = (body["structured_outputs"] for body in server.bodies())
    assert '"max_whitespace_cnt": 1' in tag["structural_tag"]
    assert whole == {"json": {"type": "array", "uniqueItems": True}}


def test_the_pieces_of_a_stream_are_the_answer(serve, connect):
    backend = connect(serve(["Paris", "Paris"], chunk=2))
    pieces = list(backend.iterate(backend.stream(Request(PROMPT, top_logprobs=2))))
    (whole,) = backend.run(backend.generate(Request(PROMPT, top_logprobs=2)))
    last = pieces[-1].candidate
    assert "".join(one.text for one in pieces) == whole.text == last.text
    assert sum((one.token_ids for one in pieces), ()) == whole.token_ids == last.token_ids
    for name in ("entropy", "logprob", "top_logprobs"):
        together = np.concatenate([getattr(one.trace, name) for one in pieces])
        np.testing.assert_array_equal(together, getattr(whole.trace, name))
        np.testing.assert_array_equal(together, getattr(last.trace, name))
    assert last.cached_tokens == 3 and all(one.candidate is None for one in pieces[:-1])


def test_lines_within_a_text_do_not_break_a_stream(serve, connect):
    text = "a\u2028b\x85c\x0bd"  # each of them ends a line for `str.splitlines`
    backend = connect(serve([text], chunk=64))
    (piece,) = backend.iterate(backend.stream(Request(PROMPT)))
    assert piece.candidate.text == text


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_boundary_ends_a_sample_at_its_token(serve, connect, chunk):
    server = serve(["one. two. three"], chunk=chunk)
    backend = connect(server)
    (found,) = backend.run(backend.generate(Request(PROMPT, until=lambda text: ". " in text)))
    assert (found.text, found.finish_reason) == ("one. ", "boundary")
    assert found.token_ids == tuple(b"one. ") and len(found.trace) == 5


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("statistic", ["entropy", "self_certainty"])
def test_an_early_stop_leaves_out_the_token_that_was_too_uncertain(
    serve, connect, chunk, statistic
):
    backend = connect(serve(["Paris"], chunk=chunk))
    rule = EarlyStop(above=-10.0, window=3, statistic=statistic)
    (found,) = backend.run(backend.generate(Request(PROMPT, early_stop=rule)))
    assert (found.text, found.finish_reason) == ("Pa", "early_stop")
    assert found.token_ids == tuple(b"Pa") and len(found.trace) == 2
    never = EarlyStop(above=100.0, window=3, statistic=statistic)
    (whole,) = backend.run(backend.generate(Request(PROMPT, early_stop=never)))
    assert whole.finish_reason == "stop"


def test_a_monitor_aborts_the_others_on_the_server(serve, connect):
    server = serve(["Yes", "No, that is a very long answer"])
    server.faults = [Fault(), Fault(token_delay=0.3)]
    backend = connect(server)
    monitor = SampleMonitor(enough=lambda finished: True)
    found = backend.run(backend.generate(Request(PROMPT, n=2), monitor))
    reasons = {one.finish_reason: one for one in found}
    assert reasons.keys() == {"stop", "abort"}
    assert len(reasons["abort"].token_ids) == len(reasons["abort"].trace) < 10


def test_given_tokens_are_scored_behind_their_prompt(serve, connect):
    server = serve()
    backend = connect(server)
    found = backend.run(backend.score_all(PROMPT, [tuple(b"Paris"), (), tuple(b"Rome")], 2))
    assert [one.text for one in found] == ["Paris", "", "Rome"]
    assert [len(one.trace) for one in found] == [5, 0, 4]
    assert all(one.trace.is_exact and one.finish_reason is None for one in found)
    assert found[0].trace.top_ids.shape == (5, 2)
    assert {body["uncertainty_from"] for body in server.bodies()} == {len(PROMPT)}


def test_texts_and_conversations_are_encoded_by_the_server(serve, connect):
    server = serve()
    backend = connect(server)
    conversation = Conversation(({"role": "user", "content": "Hi"},), continues=True)
    assert backend.run(backend.encode("é")) == tuple("é".encode())
    assert backend.run(backend.encode("Hi", chat=True)) == tuple(b"user: Hi")
    backend.run(backend.encode_chat(conversation))
    backend.run(backend.encode_data("x", continues=True))
    bodies = [body for path, body in server.requests if path == "/v1/uq/encode"]
    assert bodies[2] == {
        "messages": [{"role": "user", "content": "Hi"}],
        "continues": True,
        "allow_special_tokens": False,
    }
    assert bodies[3] == {"text": "x", "data": True, "continues": True}
    assert backend.run(backend.decode((72, 105, END))) == "Hi"
    assert backend.run(backend.token_texts((72, 105, END))) == ["H", "i", ""]
    assert backend.run(backend.encode("")) == () and backend.run(backend.token_texts(())) == []


def test_a_model_answers_by_it(serve):
    with UncertaintyModel(VLLMServerBackend(serve(["Paris"]).url)) as model:
        result = model.generate("The capital of France is")
    assert result.text == "Paris" and result.score("perplexity").is_known


def test_capabilities_are_known_after_the_first_contact(serve, connect):
    server = serve(max_logprobs=5)
    backend = connect(server)
    assert (backend.capabilities.vocabulary_size, server.requests) == (None, [])
    backend.run(backend.encode("x"))
    found = backend.capabilities
    assert (found.model, found.vocabulary_size, found.context_length) == ("scripted", 256, 4096)
    assert found.max_top_logprobs == 5 and found.why_inexact is None


def test_what_cannot_work_is_refused_before_it_is_sent(serve, connect):
    server = serve(context_length=8)
    backend = connect(server)
    with pytest.raises(PromptTooLongError):
        backend.run(backend.generate(Request(PROMPT)))
    with pytest.raises(InvalidRequestError, match="top_logprobs"):
        backend.run(backend.generate(Request((65,), top_logprobs=21)))
    with pytest.raises(InvalidRequestError, match="no token 256"):
        backend.run(backend.generate(Request((256,))))
    with pytest.raises(InvalidRequestError, match="n is 2"):
        list(backend.iterate(backend.stream(Request((65,), n=2))))
    assert server.bodies() == []


def test_a_server_shows_nothing_of_its_inside(serve, connect):
    backend = connect(serve())
    with pytest.raises(MethodUnavailableError, match="hidden states"):
        backend.run(backend.inspect_all([(65,)], Inspection((-1,))))
    with pytest.raises(MethodUnavailableError):
        UncertaintyModel(backend, methods=["rauq"])


def test_copies_are_equal_and_the_last_one_closes(serve):
    server = serve()
    first = VLLMServerBackend(server.url, api_key="secret-key")
    others = [copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    assert all(one == first and one.fingerprint == first.fingerprint for one in others)
    first.close()
    with pytest.raises(EngineClosedError):
        first.run(first.encode("x"))
    for one in others:
        assert one.run(one.encode("x")) == (120,)
        one.close()
    again = copy.copy(first)
    assert again.run(again.encode("x")) == (120,)
    again.close()


def test_secrets_are_never_shown():
    backend = VLLMServerBackend(
        "http://127.0.0.1:1", api_key="secret-key", headers={"X-Team": "secret-team"}
    )
    other = VLLMServerBackend("http://127.0.0.1:1", api_key=SecretStr("another"))
    shown = f"{backend!r} {backend.identity_parts()} {backend._identity()} {vars(backend)}"
    assert "secret-" not in shown
    assert backend.fingerprint == other.fingerprint and backend != other


def test_closing_ends_what_is_under_way(serve, connect):
    server = serve()
    server.always = Fault(delay=60)
    backend = connect(server)
    timer = threading.Timer(0.3, backend.close)
    timer.start()
    with pytest.raises(EngineClosedError):
        backend.run(backend.generate(Request(PROMPT)))
    timer.join()


def test_one_object_serves_threads_tasks_and_loops(serve, connect):
    backend = connect(serve(["Paris"]))

    async def many() -> list[str]:
        runs = [backend.generate(Request(PROMPT)) for _ in range(5)]
        return [one.text for (one,) in await asyncio.gather(*runs)]

    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(many()))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [["Paris"] * 5] * 4
    assert backend.run(many()) == ["Paris"] * 5


def test_a_choice_that_cannot_be_read_is_an_error_of_its_own(serve, connect):
    server = serve(["Paris"])

    def spoiled(body: dict) -> dict:
        body["choices"][1]["finish_reason"] = None
        return body

    server.faults = [Fault(change=spoiled)]
    backend = connect(server)
    good, bad = backend.run(backend.generate(Request(PROMPT, n=2)))
    assert good.text == "Paris" and isinstance(bad.error, EngineError)


def test_neither_torch_nor_vllm_is_needed():
    said = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'vllm', 'transformers'])\n"
        "from uq_llm_integrations import VLLMServerBackend, UncertaintyModel\n"
        "UncertaintyModel(VLLMServerBackend('http://127.0.0.1:1')).close()\n"
        "print(sorted({'lm_polygraph', 'scipy', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
