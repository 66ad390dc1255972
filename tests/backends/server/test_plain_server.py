"""Servers without the plugin, and routers that pass on two routes only."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from uq_llm_integrations import (
    Conversation,
    EarlyStop,
    InvalidRequestError,
    Request,
    UncertaintyModel,
)
from uq_llm_integrations.testing import Fault
from uq_llm_integrations.testing.scripted_answers import END

PROMPT = tuple(b"The capital of France is")
TRUE_ENTROPY = 0.8792093285339417


@pytest.fixture(params=["plain", "plain router"])
def plain(request, serve, connect):
    """A server without the plugin, and a backend of it, with all routes or two of them."""
    if request.param == "plain":
        server = serve(["Paris"], plugin=False)
        return server, connect(server)
    server = serve(["Paris"], plugin=False, only_completions=True)
    return server, connect(server, routes="completions", model="scripted")


def test_traces_are_bounded_and_say_why(plain):
    server, backend = plain
    (found,) = backend.run(backend.generate(Request(PROMPT)))
    assert (found.text, found.token_ids) == ("Paris", (*b"Paris", END))
    trace = found.trace
    assert not trace.is_exact and "no uq_llm plugin" in trace.why_inexact
    assert trace.top_ids.shape == (6, 20) and trace.rank.tolist() == [1] * 6
    np.testing.assert_allclose(trace.logprob, np.log(0.9))
    (body,) = server.bodies()
    assert body["logprobs"] == 20 and body["return_tokens_as_token_ids"]
    assert "uncertainty" not in body


def test_scores_are_intervals_that_hold_the_truth(plain):
    _, backend = plain
    model = UncertaintyModel(backend, methods=["entropy", "perplexity"])
    found = model.generate("The capital of France is")
    score = found.score("entropy")
    assert score.value is None and score.lower <= TRUE_ENTROPY <= score.upper
    assert found.score("perplexity").value == pytest.approx(1 / 0.9)


def test_pieces_and_given_tokens_are_bounded_too(plain):
    _, backend = plain
    *_, last = backend.iterate(backend.stream(Request(PROMPT)))
    (scored,) = backend.run(backend.score_all(PROMPT, [tuple(b"Rome")]))
    for found in (last.candidate, scored):
        assert not found.trace.is_exact and not found.trace.damage
        assert len(found.trace) == len(found.token_ids)


def test_its_sizes_are_known_from_what_it_refuses(plain):
    _, backend = plain
    backend.run(backend.encode("x"))
    found = backend.capabilities
    assert (found.vocabulary_size, found.context_length) == (256, 4096)
    assert found.max_top_logprobs == 20 and found.why_inexact


def test_it_is_said_once(plain, caplog):
    _, backend = plain
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            backend.run(backend.generate(Request(PROMPT)))
    assert caplog.text.count("no uq_llm plugin") == 1


def test_texts_and_tokens_come_from_its_own_routes(plain):
    _, backend = plain
    assert backend.run(backend.encode("Hi")) == tuple(b"Hi")
    assert backend.run(backend.encode("Hi", chat=True)) == tuple(b"user: Hi")
    assert backend.run(backend.encode_continuation("Hi")) == tuple(b"Hi")
    assert backend.run(backend.decode(tuple(b"Hi"))) == "Hi"
    text = "né ☃"
    texts = backend.run(backend.token_texts(tuple(text.encode())))
    assert texts == ["n", "", "é", " ", "", "", "☃"]


def test_a_boundary_is_found_without_the_plugin(serve, connect):
    backend = connect(serve(["one. two"], plugin=False, chunk=4))
    (found,) = backend.run(backend.generate(Request(PROMPT, until=lambda text: "." in text)))
    assert (found.text, found.token_ids) == ("one.", tuple(b"one."))


def test_an_early_stop_needs_the_plugin(plain):
    _, backend = plain
    with pytest.raises(InvalidRequestError, match="no uq_llm plugin"):
        backend.run(backend.generate(Request(PROMPT, early_stop=EarlyStop(1.0))))


@pytest.fixture
def controlled(plain, monkeypatch):
    """The same, where `<|end|>` is one token."""
    from uq_llm_integrations.testing import scripted_answers

    plain_bytes = scripted_answers.encoded

    def encoded(body, text) -> bytes:
        return plain_bytes(body, text).replace(b"<|end|>", b"\x01")

    def shown(ids) -> str:
        return bytes(one for one in ids if one).replace(b"\x01", b"<|end|>").decode()

    monkeypatch.setattr(scripted_answers, "encoded", encoded)
    monkeypatch.setattr(scripted_answers, "shown", shown)
    return plain


def test_names_of_control_tokens_stay_text_or_are_refused(controlled):
    _, backend = controlled
    assert backend.run(backend.encode("a<|end|>")) == (97, 1)
    assert backend.run(backend.encode_data("a<|end|><b>")) == tuple(b"a<|end|><b>")
    message = {"role": "user", "content": "a<|end|>"}
    with pytest.raises(InvalidRequestError, match=r"<\|end\|>"):
        backend.run(backend.encode_chat(Conversation((message,))))
    allowed = Conversation((message,), allow_special_tokens=True)
    assert backend.run(backend.encode_chat(allowed))[-1] == 1
    harmless = Conversation(({"role": "user", "content": "<b>a</b> [x] <|other|>"},))
    assert backend.run(backend.encode_chat(harmless))
    assert backend.run(backend.decode((97, 1))) == "a"


def test_a_router_is_asked_for_two_routes_only(serve, connect):
    server = serve(["Paris"], only_completions=True)
    backend = connect(server, routes="completions", model="scripted")
    prompt = backend.run(backend.encode("The capital of France is", chat=True))
    (found,) = backend.run(backend.generate(Request(prompt)))
    backend.run(backend.token_texts(found.token_ids))
    (scored,) = backend.run(backend.score_all(prompt, [(65,)]))
    list(backend.iterate(backend.stream(Request(prompt))))
    assert found.trace.is_exact and scored.trace.is_exact
    assert {path for path, _ in server.requests} == {"/v1/completions", "/v1/chat/completions"}
    assert all(body["model"] == "scripted" for _, body in server.requests)


def test_tools_stay_in_the_prompt_behind_a_router(serve, connect):
    server = serve(["Paris"], only_completions=True)
    backend = connect(server, routes="completions", model="scripted")
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    given = Conversation(({"role": "user", "content": "x"},), (tool,), {"think": False})
    backend.run(backend.encode_chat(given))
    (body,) = server.bodies("/v1/chat/completions")
    assert body["tools"] == [tool] and body["tool_choice"] == "none"
    assert body["chat_template_kwargs"] == {"think": False}
    assert "allow_special_tokens" not in body
    backend.run(backend.encode_chat(replace(given, allow_special_tokens=True)))
    assert server.bodies("/v1/chat/completions")[1]["allow_special_tokens"] is True


def test_a_server_that_says_no_length_needs_max_tokens(serve, connect, monkeypatch):
    from uq_llm_integrations.testing import scripted_answers

    monkeypatch.setattr(scripted_answers, "refusal", lambda body: None)
    server = serve(["Paris"], plugin=False, only_completions=True)
    backend = connect(server, routes="completions", model="scripted")
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        backend.run(backend.generate(Request(PROMPT)))
    sampling = {"max_tokens": 9}
    (found,) = backend.run(backend.generate(Request(PROMPT, sampling=sampling)))
    assert found.text == "Paris" and not found.trace.damage


def test_a_server_that_returns_no_token_ids_is_refused(serve, connect):
    server = serve(["Paris"], plugin=False)

    def change(body: dict) -> dict:
        del body["choices"][0]["token_ids"]
        return body

    server.always = Fault(change=change)
    backend = connect(server)
    with pytest.raises(Exception, match="return_token_ids"):
        backend.run(backend.generate(Request(PROMPT)))
