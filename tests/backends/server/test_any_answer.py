"""Whatever a server answers: it is read, or refused as an error of ours. Over real HTTP."""

import asyncio
import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import JSON, changes, fuzz
from uq_llm_integrations import Conversation, Request, UncertaintyError, VLLMServerBackend
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.testing import ScriptedServer
from uq_llm_integrations.testing.scripted_answers import probability_rows

PROMPT = tuple(b"The capital of France is")
CHAT = Conversation(({"role": "user", "content": "Capital of France?"},))
SECONDS = 60
"""No example may take longer: a server that says something wrong leaves nobody waiting."""


class AnyServer(ScriptedServer):
    """Answers some routes with bytes as they are, head and all, and ends the connection."""

    def __init__(self, **options) -> None:
        super().__init__(["Paris"], **options)
        self.said: dict[str, bytes] = {}

    async def _answer(self, path, headers, body, writer) -> None:
        if path not in self.said or body.get("prompt") == [0]:
            return await super()._answer(path, headers, body, writer)
        writer.write(self.said[path])
        await writer.drain()
        raise ConnectionAbortedError


@pytest.fixture(scope="module")
def server() -> Iterator[AnyServer]:
    with AnyServer() as server:
        yield server


@pytest.fixture(scope="module")
def backend(server) -> Iterator[VLLMServerBackend]:
    with VLLMServerBackend(server.url, deadline=SECONDS) as backend:
        backend.run(backend.encode("?"))  # the first contact
        yield backend


def answered(data: bytes, kind: bytes = b"application/json", status: bytes = b"200") -> bytes:
    return (
        b"HTTP/1.1 %s Status\r\nContent-Type: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % (status, kind, len(data))
    ) + data


def written(event: object) -> bytes:
    return json.dumps(event, default=repr).encode("utf-8", "surrogatepass")


def read_or_refused(backend: VLLMServerBackend, call) -> object:
    """What a call gives, None where it is refused by an error of ours."""

    async def in_time():
        async with asyncio.timeout(SECONDS):
            return await call()

    try:
        return backend.run(in_time())
    except UncertaintyError as error:
        assert str(error)
        return None


def whole(backend, **options):
    return read_or_refused(backend, lambda: backend.generate(Request(PROMPT, **options)))


def streamed(backend):
    async def pieces():
        return [one async for one in backend.stream(Request(PROMPT))]

    return read_or_refused(backend, pieces)


def check(candidate) -> None:
    """What was read can be true: as many rows as tokens, or a reason why there are none."""
    assert len(candidate.trace) == len(candidate.token_ids) or candidate.trace.damage
    assert all(0 <= one < 256 for one in candidate.token_ids)


STATUSES = st.sampled_from([b"200", b"204", b"301", b"400", b"404", b"422", b"429", b"500", b"503"])
HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: \xff\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 2\r\n\r\n",
        b"",
    ]
)


def choice(ids: bytes, first: int, finish: str | None, **more) -> dict:
    """What a server with the plugin says of some tokens."""
    rows = base64.b64encode(probability_rows(list(ids), 0.9).astype("<f8").tobytes()).decode()
    exact = {"version": 1, "exact": True, "reason": None, "first": first, "rows": rows}
    text = ids.decode().rstrip("\0")
    own = {"index": 0, "text": text, "token_ids": list(ids), "finish_reason": finish}
    return {**own, "stop_reason": None, "uncertainty": exact, **more}


TOPS = {
    "tokens": ["token_id:80", "token_id:0"],
    "token_logprobs": [-0.1, -0.2],
    "top_logprobs": [
        {"token_id:80": -0.1, "token_id:7": -3.0},
        {"token_id:0": -0.2, "token_id:7": -3.0},
    ],
}
ENDS = {"prompt_token_ids": list(PROMPT), "logprobs": TOPS}
ANSWER = {
    "choices": [choice(b"P\0", 0, "stop", **ENDS)],
    "usage": {"prompt_tokens_details": {"cached_tokens": 3}},
}
EVENTS = [
    {"choices": [choice(b"P", 0, None)]},
    {"choices": [choice(b"a", 1, None)]},
    {"choices": [choice(b"\0", 2, "stop")]},
    {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}},
]


@fuzz(300)
@given(HEADS, st.binary(max_size=40))
def test_bytes_that_are_no_answer_are_an_error_of_ours(server, backend, head, rest):
    server.said = {"/v1/completions": head + rest}
    assert whole(backend) is None


@fuzz(300)
@given(changes(ANSWER).map(written) | JSON.map(written) | st.binary(max_size=40), STATUSES)
def test_a_whole_answer_is_read_or_refused(server, backend, data, status):
    server.said = {"/v1/completions": answered(data, status=status)}
    for candidate in whole(backend) or ():
        check(candidate)
    for candidate in whole(backend, top_logprobs=2) or ():
        check(candidate)


LINES = st.binary(max_size=20) | st.sampled_from([b"data:", b"\n", b": ping\n\n", b"data: [DONE]"])


@fuzz(300)
@given(
    st.lists(
        st.sampled_from(EVENTS).map(written)
        | st.sampled_from(EVENTS).flatmap(changes).map(written)
        | JSON.map(written)
        | st.just(b"[DONE]"),
        max_size=7,
    ),
    st.lists(LINES, max_size=2),
)
def test_a_stream_is_read_or_refused(server, backend, events, between):
    data = b"".join(b"data: " + one + b"\n\n" for one in events) + b"".join(between)
    server.said = {"/v1/completions": answered(data, b"text/event-stream")}
    for piece in streamed(backend) or ():
        if piece.candidate is not None:
            check(piece.candidate)


@fuzz(300)
@given(
    changes({"token_ids": [1, 2]}).map(written) | st.binary(max_size=20),
    changes({"text": "ab", "texts": ["a", "b"]}).map(written) | st.binary(max_size=20),
    STATUSES,
    st.integers(0, 255),
)
def test_tokens_and_texts_are_read_or_refused(server, backend, ids, texts, status, token):
    server.said = {
        "/v1/uq/encode": answered(ids, status=status),
        "/v1/uq/decode": answered(texts, status=status),
    }
    assert all(
        0 <= one < 256 for one in read_or_refused(backend, lambda: backend.encode("?")) or ()
    )
    read_or_refused(backend, lambda: backend.encode_chat(CHAT))
    read_or_refused(backend, lambda: backend.decode((token, 2)))
    read_or_refused(backend, lambda: backend.token_texts((token, 2)))


CAPABILITIES = {
    "version": 1,
    "package_version": "1",
    "vllm_version": "0.32.0",
    "model": "scripted",
    "vocabulary_size": 256,
    "context_length": 4096,
    "max_logprobs": 20,
    "columns": list(COLUMNS),
    "exact": True,
    "reason": None,
    "tokenizer": "bytes",
    "has_chat_template": True,
    "block_size": 16,
}
MODELS = {"data": [{"id": "scripted", "max_model_len": 4096}]}


@fuzz(100)
@given(
    changes(CAPABILITIES).map(written) | st.binary(max_size=20) | st.none(),
    changes(MODELS).map(written) | st.binary(max_size=20),
    changes({"version": "0.32.0"}).map(written) | st.binary(max_size=20),
    STATUSES,
)
def test_a_first_contact_is_made_or_refused(server, capabilities, models, version, status):
    server.said = {"/v1/models": answered(models), "/version": answered(version)}
    if capabilities is not None:
        server.said["/v1/uq/capabilities"] = answered(capabilities, status=status)
    with VLLMServerBackend(server.url, deadline=SECONDS) as fresh:
        for candidate in whole(fresh) or ():
            assert candidate.text == "Paris"
