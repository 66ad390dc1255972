"""What servers answer in the place of an answer, and answers that cannot be true."""

import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uq_llm_integrations import (
    ConfigurationError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
    ModelNotFoundError,
    Request,
    UncertaintyError,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.backends.server.http_errors import retry_after
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.testing import Fault, ScriptedServer
from uq_llm_integrations.testing.scripted_answers import probability_rows
from uq_llm_integrations.testing.server_faults import changed_rows

PROMPT = tuple(b"The capital of France is")


@pytest.mark.parametrize(
    "body",
    [b'{"choices": [', b"[1]", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": "\xff"}', b"[" * 9999],
    ids=["cut", "no object", "NaN", "infinity", "no UTF-8", "deep"],
)
def test_an_answer_that_is_no_json_object_is_an_error(serve, connect, body):
    server = serve(["Paris"])
    backend = connect(server)
    for change in ({"body": body}, {"change": lambda _: body}):  # whole, and an event of a stream
        server.faults = [Fault(**change)]
        with pytest.raises(EngineError, match="is no JSON"):
            if "body" in change:
                backend.run(backend.generate(Request(PROMPT)))
            else:
                list(backend.iterate(backend.stream(Request(PROMPT))))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ConfigurationError),
        (400, InvalidRequestError),
        (401, ConfigurationError),
        (403, ConfigurationError),
        (404, ConfigurationError),
        (408, EngineTimeoutError),
        (413, InvalidRequestError),
        (418, InvalidRequestError),
        (422, InvalidRequestError),
        (429, EngineBusyError),
        (500, EngineError),
        (502, EngineDeadError),
        (503, EngineDeadError),
        (504, EngineTimeoutError),
        (599, EngineError),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_every_status_is_one_of_our_errors(serve, connect, status, kind, is_stream):
    server = serve()
    server.faults = [Fault(status=status)]
    backend = connect(server)
    with pytest.raises(kind) as caught:
        if is_stream:
            list(backend.iterate(backend.stream(Request(PROMPT))))
        else:
            backend.run(backend.generate(Request(PROMPT)))
    assert type(caught.value) is kind and server.url in str(caught.value)
    assert caught.value.is_retryable == (status in (408, 429, 502, 503, 504))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long"}},
        {"message": "too long"},
        {"detail": [{"msg": "too long"}]},
        {"error": "too long"},
        b"<html>too long</html>",
        b"\xff too\nlong \x1b[31m" + b"x" * 10**6,
    ],
)
def test_what_a_server_says_is_in_the_message_and_cut(serve, connect, body):
    server = serve()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.faults = [Fault(status=400, body=data)]
    with pytest.raises(InvalidRequestError, match="too long") as caught:
        backend = connect(server)
        backend.run(backend.generate(Request(PROMPT)))
    assert len(str(caught.value)) < 800 and str(caught.value).isprintable()


def test_a_wrong_key_is_refused_without_being_shown(serve, connect):
    server = serve(api_key="the-right-key")
    backend = connect(server, api_key="a-wrong-key")
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        backend.run(backend.generate(Request(PROMPT)))
    assert "a-wrong-key" not in f"{caught.value} {caught.value.__cause__}"
    good = connect(server, api_key="the-right-key", headers={"X-Team": "blue"})
    good.run(good.encode("x"))
    assert server.headers[-1]["x-team"] == "blue"


def test_a_server_that_repeats_a_secret_does_not_make_us_show_it(serve, connect):
    server = serve()
    server.faults = [Fault(status=400, body=b"you sent Bearer secret-key and blue-team")]
    backend = connect(server, api_key="secret-key", headers={"X-Team": "blue-team"})
    with pytest.raises(InvalidRequestError) as caught:
        backend.run(backend.generate(Request(PROMPT)))
    assert "secret-key" not in str(caught.value) and "blue-team" not in str(caught.value)


def test_a_model_that_is_not_served_is_named(serve, connect):
    backend = connect(serve(), model="other")
    with pytest.raises(ModelNotFoundError, match=r"'other'.*scripted"):
        backend.run(backend.encode("x"))


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2},
        {"columns": ["token"]},
        {"vocabulary_size": -1},
        {"vocabulary_size": 10**30},
        {"context_length": "many"},
        {"max_logprobs": None},
        {"model": ["x"]},
    ],
)
def test_capabilities_that_cannot_be_true_are_refused(serve, connect, changed):
    backend = connect(serve(**changed) if "model" not in changed else serve(model=["x"]))
    with pytest.raises((ConfigurationError, EngineError)):
        backend.run(backend.encode("x"))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "ftp://x",
        "http://",
        "http://a:b@host",
        "http://h?x=1",
        "http://h:99999",
        "http://a b",
        "http://a\n",
        None,
        3,
        [],
        [None],
        ["http://a", "http://a/v1"],
    ],
)
def test_addresses_that_are_none_are_refused_at_once(address):
    with pytest.raises(ConfigurationError, match="base_url"):
        VLLMServerBackend(address)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": ""},
        {"api_key": "two\nlines"},
        {"api_key": 3},
        {"headers": {"Authorization": "x"}},
        {"headers": {"X y": "x"}},
        {"headers": {"X": "ü"}},
        {"headers": ["X"]},
        {"routes": "some"},
        {"routes": "completions"},
        {"model": ""},
        {"max_n": 0},
        {"deadline": 0},
        {"connect_timeout": float("nan")},
        {"first_token_timeout": True},
        {"max_in_flight": 0},
    ],
)
def test_options_that_can_never_work_are_refused_at_once(options):
    with pytest.raises(ConfigurationError, match=r"|".join(options)) as caught:
        VLLMServerBackend("http://127.0.0.1:1", **options)
    assert "two\nlines" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = ["index", "text", "token_ids", "finish_reason", "stop_reason", "uncertainty", "logprobs"]
ROWS = ["version", "exact", "first", "rows"]


@pytest.fixture(scope="module")
def answering():
    """One server for all examples: with the plugin, and one that answers without it."""
    with (
        ScriptedServer(["Paris"]) as exact,
        ScriptedServer(["Paris"], plugin=False) as plain,
        VLLMServerBackend(exact.url) as one,
        VLLMServerBackend(plain.url) as other,
    ):
        yield [(exact, one), (plain, other)]


def check_never_a_wrong_number(server, backend, change, is_stream) -> None:
    """The answer is an error of ours, or its trace is right or says that it is damaged."""
    server.faults = [Fault(change=change)]
    request = Request(PROMPT, top_logprobs=2)
    try:
        if is_stream:
            candidate = list(backend.iterate(backend.stream(request)))[-1].candidate
        else:
            (candidate,) = backend.run(backend.generate(request))
    except UncertaintyError as error:
        assert str(error)
        return
    finally:
        server.faults = []
    trace = candidate.trace
    assert trace.damage or len(trace) == len(candidate.token_ids)
    if not trace.damage:
        assert all(abs(trace.logprob - -0.10536051565782628) < 1e-9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_answers_never_become_numbers(answering, data):
    server, backend = data.draw(st.sampled_from(answering))
    name, value = data.draw(st.sampled_from(FIELDS + ROWS)), data.draw(json_values)

    def change(body: dict) -> dict | bytes:
        for choice in body.get("choices", []):
            part = choice.get("uncertainty", {}) if name in ROWS else choice
            if name == "finish_reason" and value is None:
                part.pop(name, None)
            elif name != "text":
                part[name] = value
        return body

    check_never_a_wrong_number(server, backend, change, data.draw(st.booleans()))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cut_or_garbled_bodies_never_become_numbers(answering, data):
    server, backend = data.draw(st.sampled_from(answering))
    position, is_cut = data.draw(st.integers(0, 4000)), data.draw(st.booleans())
    byte = data.draw(st.integers(0, 255).filter(lambda one: chr(one) not in '0123456789ABCabc"'))

    def change(body: dict) -> bytes:
        said = json.dumps(body).encode()
        at = position % len(said)
        return said[:at] if is_cut else said[:at] + bytes([byte]) + said[at + 1 :]

    server.faults = [Fault(change=change)]
    try:
        (candidate,) = backend.run(backend.generate(Request(PROMPT)))
    except UncertaintyError as error:
        assert str(error)
    else:
        assert candidate.trace.damage or len(candidate.trace) == len(candidate.token_ids)
    finally:
        server.faults = []


def test_rows_of_other_tokens_and_rows_that_are_no_numbers_are_damage(serve, connect):
    server = serve(["Paris"])
    backend = connect(server)
    wrong = probability_rows([*b"Turin\0"], 0.9)
    nan = probability_rows([*b"Paris\0"], 0.9)
    nan[3, 0] = np.nan
    for rows, why in ((wrong, "other tokens"), (nan, "token 3"), (nan[:3], "3 rows for 6")):

        def change(body: dict, rows=rows) -> dict:
            data = base64.b64encode(rows.astype("<f8").tobytes()).decode()
            body["choices"][0]["uncertainty"]["rows"] = data
            return body

        server.faults = [Fault(change=change)]
        (found,) = backend.run(backend.generate(Request(PROMPT)))
        assert found.text == "Paris" and why in found.trace.damage


@pytest.mark.parametrize("k", [0, 3])
def test_rows_are_compared_with_their_tokens_with_and_without_a_top_k(serve, connect, k):
    server = serve(["Paris"])
    next_token = np.arange(len(COLUMNS)) == COLUMNS.index("token")
    server.faults = [Fault(change=changed_rows(lambda rows: rows + next_token))]
    backend = connect(server)
    (found,) = backend.run(backend.generate(Request(PROMPT, top_logprobs=k)))
    assert found.text == "Paris" and "other tokens" in found.trace.damage


@pytest.mark.parametrize("name", [one for one in COLUMNS if one not in ("stopped", "token")])
def test_a_number_that_cannot_be_true_gives_no_score(serve, connect, name):
    """Also where what follows from it would be below 0, which is no rounding then."""
    server = serve(["Paris"])

    def impossible(rows: np.ndarray) -> np.ndarray:
        rows[2, COLUMNS.index(name)] = 1e9
        return rows

    server.faults = [Fault(change=changed_rows(impossible))]
    result = UncertaintyModel(connect(server), methods=["entropy"]).generate("?")
    assert result.text == "Paris" and result.score("entropy").value is None


def test_an_answer_to_another_prompt_is_refused(serve, connect):
    server = serve(["Paris"])

    def change(body: dict) -> dict:
        body["choices"][0]["prompt_token_ids"] = [1, 2, 3]
        return body

    server.always = Fault(change=change)
    backend = connect(server)
    with pytest.raises(EngineError, match="another prompt"):
        backend.run(backend.generate(Request(PROMPT)))
    with pytest.raises(EngineError, match="another prompt"):
        list(backend.iterate(backend.stream(Request(PROMPT))))
    (scored,) = backend.run(backend.score_all(PROMPT, [(65,)]))
    assert "another prompt" in scored.trace.damage


def test_a_choice_that_comes_twice_is_refused_rather_than_joined(serve, connect):
    server = serve(["Paris"])
    server.always = Fault(change=lambda body: {**body, "choices": body["choices"] * 2})
    backend = connect(server)
    with pytest.raises(EngineError, match="same choice twice"):
        backend.run(backend.generate(Request(PROMPT)))
    with pytest.raises(EngineError, match="same choice twice"):
        list(backend.iterate(backend.stream(Request(PROMPT))))


def test_an_answer_that_is_not_exact_says_why(serve, connect):
    server = serve(["Paris"])

    def change(body: dict) -> dict:
        inexact = {"exact": False, "reason": "the batch was odd", "rows": None}
        body["choices"][0]["uncertainty"] |= inexact
        return body

    backend = connect(server)
    server.faults = [Fault(change=change), Fault(change=change)]
    (found,) = backend.run(backend.generate(Request(PROMPT, top_logprobs=3)))
    assert not found.trace.is_exact and found.trace.why_inexact == "the batch was odd"
    (found,) = backend.run(backend.generate(Request(PROMPT)))
    assert "the batch was odd" in found.trace.damage


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), (" 2 ", 2.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
    + [(one, None) for one in (None, "", "soon", "-1", "nan", "1e999", "Wed, 99 Foo")],
)
def test_retry_after_has_two_forms(value, seconds):
    assert retry_after(value) == seconds


@pytest.mark.parametrize("first", [0, False])
def test_a_stream_of_which_a_later_piece_is_damaged_has_no_statistics(answering, first):
    def change(event: dict) -> dict:
        for choice in event["choices"]:
            if "uncertainty" in choice:
                choice["uncertainty"]["first"] = first
        return event

    (server, backend), _ = answering
    server.faults = [Fault(change=change)]
    request = Request(PROMPT, top_logprobs=2)
    candidate = list(backend.iterate(backend.stream(request)))[-1].candidate
    assert len(candidate.token_ids) == 6 and "due were version 1" in candidate.trace.damage
