"""What every backend promises, of all of them alike: here, in a process, and behind a server."""

import asyncio
import copy
from collections.abc import Iterator

import numpy as np
import pytest

from uq_llm_integrations import (
    Backend,
    EmptyPromptError,
    EngineClosedError,
    InvalidRequestError,
    Request,
    SampleMonitor,
    ScriptedBackend,
    VLLMServerBackend,
)
from uq_llm_integrations.testing import ScriptedServer

PROMPT = "The capital of France is"
GREEDY = {"temperature": 0.0, "max_tokens": 12}

KINDS = [
    pytest.param("scripted", id="scripted"),
    pytest.param("embedded", id="embedded", marks=pytest.mark.engine),
    pytest.param("served", id="served", marks=pytest.mark.loopback),
    pytest.param("served plainly", id="served plainly", marks=pytest.mark.loopback),
    pytest.param("routed", id="routed", marks=pytest.mark.loopback),
    pytest.param("exact_server", id="really served", marks=pytest.mark.engine),
    pytest.param("exact_server routed", id="really routed", marks=pytest.mark.engine),
    pytest.param("plain_server", id="really served plainly", marks=pytest.mark.engine),
]


@pytest.fixture(params=KINDS)
def any_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend of each kind; the real engines belong to the whole run."""
    name, _, routed = request.param.partition(" ")
    if name == "embedded":
        yield request.getfixturevalue("backend")
    elif name == "scripted":
        with ScriptedBackend(["Paris. It is old."]) as scripted:
            yield scripted
    elif name.endswith("_server"):
        server = request.getfixturevalue(name)
        with server_backend(server, is_routed=bool(routed)) as served:
            yield served
    else:
        with (
            script_of(request.param) as server,
            server_backend(server, is_routed=server.only_completions) as served,
        ):
            yield served


def script_of(kind: str) -> ScriptedServer:
    return ScriptedServer(
        ["Paris. It is old."],
        plugin=kind != "served plainly",
        only_completions=kind == "routed",
    )


def server_backend(server, *, is_routed: bool) -> VLLMServerBackend:
    routes = "completions" if is_routed else "all"
    return VLLMServerBackend(server.url, model=server.model, routes=routes)


@pytest.fixture
def prompt_ids(any_backend: Backend) -> tuple[int, ...]:
    return any_backend.run(any_backend.encode(PROMPT))


def generated(backend: Backend, ids: tuple[int, ...], **options):
    return backend.run(backend.generate(Request(ids, sampling=GREEDY, **options)))


def test_an_answer_has_a_row_for_each_token(any_backend, prompt_ids):
    (found,) = generated(any_backend, prompt_ids)
    assert found.prompt_ids == prompt_ids and found.finish_reason in ("stop", "length")
    assert 0 < len(found.token_ids) == len(found.trace) and found.trace.damage is None
    assert found.trace.is_exact or found.trace.why_inexact
    assert (found.trace.logprob <= 1e-6).all()


def test_the_text_is_that_of_the_tokens(any_backend, prompt_ids):
    (found,) = generated(any_backend, prompt_ids)
    texts = any_backend.run(any_backend.token_texts(found.token_ids))
    assert len(texts) == len(found.token_ids)
    assert "".join(texts).strip().startswith(found.text.strip())
    assert any_backend.run(any_backend.decode(found.token_ids)).strip() == found.text.strip()


def test_texts_come_back_from_their_tokens(any_backend):
    for text in ("naïve Zürich 東京 🙂", "  two  spaces\n"):
        ids = any_backend.run(any_backend.encode_continuation(text))
        assert any_backend.run(any_backend.decode(ids)) == text
        assert "".join(any_backend.run(any_backend.token_texts(ids))) == text


def test_all_samples_come_in_their_order(any_backend, prompt_ids):
    found = generated(any_backend, prompt_ids, n=3)
    assert len({one.text for one in found}) == 1 and len(found) == 3


def test_a_stream_is_the_answer_in_pieces(any_backend, prompt_ids):
    (whole,) = generated(any_backend, prompt_ids)
    request = Request(prompt_ids, sampling=GREEDY)
    pieces = list(any_backend.iterate(any_backend.stream(request)))
    assert [one.candidate is not None for one in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(one.text for one in pieces) == whole.text == pieces[-1].candidate.text
    ids = [token for one in pieces for token in one.token_ids]
    assert tuple(ids) == whole.token_ids == pieces[-1].candidate.token_ids
    rows = np.concatenate([one.trace.logprob for one in pieces])
    np.testing.assert_allclose(rows, whole.trace.logprob, atol=1e-4)


def test_given_tokens_have_the_rows_that_they_were_generated_with(any_backend, prompt_ids):
    (whole,) = generated(any_backend, prompt_ids)
    scored = any_backend.run(any_backend.score(prompt_ids, whole.token_ids))
    assert scored.token_ids == whole.token_ids and scored.finish_reason is None
    np.testing.assert_allclose(scored.trace.logprob, whole.trace.logprob, atol=1e-4)
    if whole.trace.is_exact:
        np.testing.assert_allclose(scored.trace.entropy, whole.trace.entropy, atol=1e-4)


def test_nothing_to_score_has_no_rows(any_backend, prompt_ids):
    none, one = any_backend.run(any_backend.score_all(prompt_ids, [(), prompt_ids[:1]]))
    assert (len(none.trace), none.text) == (0, "") and len(one.trace) == 1


def test_until_ends_an_answer_at_its_token(any_backend, prompt_ids):
    (whole,) = generated(any_backend, prompt_ids)
    due = whole.text[: len(whole.text) // 2].rstrip()
    (found,) = generated(any_backend, prompt_ids, until=lambda text: due in text)
    assert found.finish_reason == "boundary" and due in found.text
    assert found.token_ids == whole.token_ids[: len(found.token_ids)]
    texts = any_backend.run(any_backend.token_texts(found.token_ids[:-1]))
    assert due.strip() not in "".join(texts)


def test_a_monitor_ends_what_is_needed_no_longer(any_backend, prompt_ids):
    monitor = SampleMonitor(hopeless=lambda logprobs, finished: len(logprobs) >= 3)
    request = Request(prompt_ids, sampling=GREEDY)
    (found,) = any_backend.run(any_backend.generate(request, monitor))
    assert found.finish_reason == "abort" and len(found.token_ids) == len(found.trace) >= 3


def test_what_can_never_work_is_refused(any_backend, prompt_ids):
    wrong = [
        Request(prompt_ids, n=0),
        Request(prompt_ids, sampling={"temperatur": 1.0}),
        Request(prompt_ids, sampling={"logprobs": 3}),
        Request(prompt_ids, top_logprobs=-2),
    ]
    for one in wrong:
        with pytest.raises(InvalidRequestError):
            any_backend.run(any_backend.generate(one))
    with pytest.raises(EmptyPromptError):
        any_backend.run(any_backend.generate(Request(())))
    with pytest.raises(InvalidRequestError, match="surrogate"):
        any_backend.run(any_backend.encode("\ud800"))


def test_other_loops_can_use_it(any_backend, prompt_ids):
    async def both() -> tuple[str, str]:
        request = Request(prompt_ids, sampling=GREEDY)
        (whole,) = await any_backend.generate(request)
        return whole.text, "".join([one.text async for one in any_backend.stream(request)])

    whole, streamed = asyncio.run(both())
    assert whole == streamed


def test_a_copy_is_equal_and_outlives_the_original(any_backend, prompt_ids):
    other, another = copy.copy(any_backend), copy.deepcopy(any_backend)
    assert other == any_backend == another and other.fingerprint == any_backend.fingerprint
    other.close()
    with pytest.raises(EngineClosedError):
        generated(other, prompt_ids)
    assert generated(another, prompt_ids)[0].text == generated(any_backend, prompt_ids)[0].text
    another.close()
