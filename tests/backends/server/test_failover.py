"""What becomes of requests where one of many servers fails, refuses or leaves."""

import asyncio
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import wait_fixed

from tests.conftest import eventually
from uq_llm_integrations import (
    ConfigurationError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
    Request,
    RetryErrors,
    Single,
    UncertaintyError,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.testing import Fault, ScriptedServer

PROMPT = tuple(b"The capital of France is")


def prompt_for(backend, server) -> tuple[int, ...]:
    """Return a prompt whose home is this server."""
    from uq_llm_integrations.backends.server.routing import prefix_key

    servers = backend._link.servers
    for number in range(10_000):
        ids = tuple(b"%16d" % number)
        if servers.pick(prefix_key(ids)).url == server.url:
            return ids
    raise AssertionError("no key belongs to the server")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_another_server_is_asked_where_one_cannot_answer(serve, connect, status):
    servers = serve(["Paris"]), serve(["Paris"])
    backend = connect(*servers)
    ids = prompt_for(backend, servers[0])
    servers[0].faults = [Fault(status=status)]
    (found,) = backend.run(backend.generate(Request(ids)))
    assert found.text == "Paris"
    assert [len(one.bodies()) for one in servers] == [1, 1]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 422, 500, 501])
def test_nobody_else_is_asked_for_any_other_failure(serve, connect, status):
    servers = serve(["Paris"]), serve(["Paris"])
    backend = connect(*servers)
    ids = prompt_for(backend, servers[0])
    servers[0].faults = [Fault(status=status)]
    with pytest.raises(UncertaintyError):
        backend.run(backend.generate(Request(ids)))
    assert [len(one.bodies()) for one in servers] == [1, 0]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_connection_that_breaks_before_the_first_token_moves_the_request(
    serve, connect, is_stream
):
    servers = serve(["Paris"]), serve(["Paris"])
    backend = connect(*servers)
    ids = prompt_for(backend, servers[0])
    servers[0].faults = [Fault(drop_at=0)]
    if is_stream:
        text = "".join(one.text for one in backend.iterate(backend.stream(Request(ids))))
    else:
        text = backend.run(backend.generate(Request(ids)))[0].text
    assert text == "Paris"


@pytest.mark.parametrize("is_watched", [False, True])
def test_there_is_no_second_try_after_a_token(serve, connect, is_watched):
    servers = serve(["Paris"]), serve(["Paris"])
    backend = connect(*servers)
    ids = prompt_for(backend, servers[0])
    servers[0].faults = [Fault(drop_at=2)]
    seen: list[str] = []
    with pytest.raises(EngineDeadError, match="broke") as caught:
        if is_watched:
            backend.run(backend.generate(Request(ids, until=lambda text: bool(seen.append(text)))))
        else:
            for piece in backend.iterate(backend.stream(Request(ids))):
                seen.append(piece.text)
    assert caught.value.is_retryable
    assert len(seen) == 2 and servers[1].bodies() == []


def test_a_stream_that_ends_without_an_end_is_an_error(serve, connect):
    server = serve(["Paris"])

    def endless(event: dict) -> dict:
        for choice in event["choices"]:
            choice["finish_reason"] = None
        return event

    server.faults = [Fault(change=endless)]
    backend = connect(server)
    with pytest.raises(EngineDeadError, match="6 tokens without finishing"):
        list(backend.iterate(backend.stream(Request(PROMPT))))


def test_one_of_two_killed_under_load_loses_and_doubles_nothing(serve, connect):
    servers = serve(["Paris"]), serve(["Paris"])
    begun = itertools.count()
    servers[0].plan = lambda _: None if next(begun) < 5 else Fault(stall_at=2)
    backend = connect(*servers)

    async def whole(number: int) -> str:
        (found,) = await backend.generate(Request(tuple(b"%16d" % number)))
        return found.text

    async def streamed(number: int) -> tuple[str, bool]:
        text = ""
        try:
            async for piece in backend.stream(Request(tuple(b"%16d" % number))):
                text += piece.text
        except EngineDeadError:
            return text, False
        return text, True

    async def load():
        runs = [whole(number) for number in range(60)], [streamed(n) for n in range(60)]
        tasks = [asyncio.ensure_future(one) for kind in runs for one in kind]
        await eventually(lambda: servers[0].counts["answers"] == 5 and servers[0].generations >= 30)
        await asyncio.to_thread(servers[0].kill)
        found = await asyncio.gather(*tasks)
        return found[:60], found[60:]

    wholes, streams = backend.run(load())
    assert Counter(wholes) == {"Paris": 60}
    # A stream is whole, or it ends where it broke: nothing of another server's comes after that.
    assert all(
        text == "Paris" if is_whole else "Paris".startswith(text) and text
        for text, is_whole in streams
    )
    assert servers[0].counts["answers"] == 5
    left = 115 - [is_whole for _, is_whole in streams].count(False)
    backend.run(eventually(lambda: servers[1].counts["answers"] == left))
    servers[0].plan = None
    servers[0].restart()
    ids = prompt_for(connect(*servers), servers[0])
    before = servers[0].counts["answers"]

    async def is_back() -> bool:
        await backend.generate(Request(ids))
        return servers[0].counts["answers"] > before

    backend.run(eventually(is_back))


@pytest.fixture(scope="module")
def pair():
    """Two servers and one backend for all examples."""
    with (
        ScriptedServer(["Paris"]) as one,
        ScriptedServer(["Paris"]) as other,
        VLLMServerBackend([one.url, other.url]) as backend,
    ):
        yield one, other, backend


FAULTS = [
    Fault(),
    Fault(status=429),
    Fault(status=500),
    Fault(status=503, headers={"Retry-After": "0"}),
    Fault(drop_at=0),
    Fault(drop_at=3),
    Fault(body=b'{"choices": ['),
]


@given(st.lists(st.lists(st.sampled_from(FAULTS), max_size=4), min_size=2, max_size=2))
@settings(max_examples=40)
def test_whatever_fails_an_answer_is_whole_or_an_error(pair, faults):
    *servers, backend = pair
    for server, some in zip(servers, faults, strict=True):
        server.faults = list(some)

    async def streamed(ids) -> str:
        return "".join([piece.text async for piece in backend.stream(Request(ids))])

    async def whole(ids) -> str:
        return (await backend.generate(Request(ids)))[0].text

    async def all_of_them() -> list:
        runs = [run(tuple(b"%16d" % n)) for n in range(3) for run in (whole, streamed)]
        return await asyncio.gather(*runs, return_exceptions=True)

    for found in backend.run(all_of_them()):
        assert found == "Paris" or isinstance(found, UncertaintyError)
    assert all(one.in_flight == 0 for one in backend._link.servers.all)


def test_retry_after_is_kept_to(serve, connect):
    server = serve(["Paris"])
    server.faults = [Fault(status=429, headers={"Retry-After": "0.2"})]
    backend = connect(server)
    (found,) = backend.run(backend.generate(Request(PROMPT)))
    assert found.text == "Paris" and len(server.bodies()) == 2


def test_who_says_to_come_back_too_late_is_busy(serve, connect):
    server = serve(["Paris"])
    server.faults = [Fault(status=429, headers={"Retry-After": "3600"})]
    backend = connect(server)
    for _ in range(2):
        with pytest.raises(EngineBusyError) as caught:
            backend.run(backend.generate(Request(PROMPT)))
        assert caught.value.is_retryable
    assert len(server.bodies()) == 1


def test_a_server_that_is_always_busy_is_not_asked_for_ever(serve, connect):
    server = serve(["Paris"])
    server.always = Fault(status=503, headers={"Retry-After": "0"})
    backend = connect(server, deadline=1.0)
    with pytest.raises(EngineDeadError):
        backend.run(backend.generate(Request(PROMPT)))
    assert 1 < len(server.bodies()) < 10


@pytest.mark.parametrize(
    ("name", "value"),
    [("vllm_version", "0.33.0"), ("model", "other"), ("context_length", 8), ("tokenizer", "x")],
)
def test_a_mixed_set_is_refused_by_name(serve, connect, name, value):
    backend = connect(serve(), serve(**{name: value} if name != "model" else {"model": value}))
    with pytest.raises(ConfigurationError, match=f"differ in {name}.*{value}"):
        backend.run(backend.encode("x"))


def test_a_server_that_comes_later_is_compared_before_it_is_used(serve, connect):
    first, second = serve(["Paris"]), serve(["Paris"], vllm_version="0.1")
    second.kill()
    backend = connect(first, second)
    backend.run(backend.encode("x"))
    ids = prompt_for(backend, first)
    assert backend.run(backend.generate(Request(ids)))[0].text == "Paris"
    second.restart()
    backend._link.servers.named(second.url).away_until = 0.0
    with pytest.raises(ConfigurationError, match="vllm_version"):
        backend.run(backend.generate(Request(prompt_for(backend, second))))
    assert second.bodies() == []


def test_a_server_that_was_renewed_is_used_if_it_serves_the_same(serve, connect):
    server = serve(["Paris"])
    backend = connect(server)
    backend.run(backend.encode("x"))
    for changed, is_refused in (({"vllm_version": "0.33.0"}, False), ({"tokenizer": "x"}, True)):
        server.kill()
        with pytest.raises(EngineDeadError):
            backend.run(backend.generate(Request(PROMPT)))
        server.capabilities |= changed
        server.restart()
        if is_refused:
            with pytest.raises(ConfigurationError, match="tokenizer"):
                backend.run(backend.generate(Request(PROMPT)))
        else:
            assert backend.run(backend.generate(Request(PROMPT)))[0].text == "Paris"


def test_a_server_that_never_answers_does_not_hold_up_the_others(serve, connect):
    good, hanging = serve(["Paris"]), serve(["Paris"])

    async def hang(*_) -> None:
        await asyncio.sleep(60)

    hanging._answer = hang
    backend = connect(good, hanging, first_token_timeout=2.0)
    found = [
        backend.run(backend.generate(Request(tuple(b"%16d" % number))))[0] for number in range(4)
    ]
    assert [one.text for one in found] == ["Paris"] * 4


def test_no_server_at_all_can_be_tried_again(serve, connect):
    server = serve(["Paris"])
    server.kill()
    backend = connect(server)
    with pytest.raises(EngineDeadError, match=f"{server.url} cannot be reached") as caught:
        backend.run(backend.generate(Request(PROMPT)))
    assert caught.value.is_retryable
    server.restart()
    assert backend.run(backend.generate(Request(PROMPT)))[0].text == "Paris"


def test_retries_and_servers_do_not_multiply_beyond_their_product(serve, connect):
    """Each attempt asks each server once: nothing below tries again by itself."""
    servers = serve(["Paris"]), serve(["Paris"])
    for server in servers:
        server.always = Fault(status=503)
    model = UncertaintyModel(connect(*servers), strategy=RetryErrors(Single(), wait=wait_fixed(0)))
    with pytest.raises(EngineDeadError):
        model.generate("?")
    assert [server.generations for server in servers] == [3, 3]


def test_a_drained_server_gets_nothing_new(serve, connect):
    servers = serve(["Paris"]), serve(["Paris"])
    backend = connect(*servers)
    ids = prompt_for(backend, servers[0])
    backend.drain(f"{servers[0].url}/v1")
    backend.run(backend.generate(Request(ids)))
    assert [len(one.bodies()) for one in servers] == [0, 1]
    backend.drain(servers[1].url)
    with pytest.raises(EngineDeadError, match="draining"):
        backend.run(backend.generate(Request(ids)))
    backend.resume(servers[0].url)
    backend.run(backend.generate(Request(ids)))
    assert [len(one.bodies()) for one in servers] == [1, 1]


def test_deadlines_end_a_call_and_nobody_else_is_asked(serve, connect):
    servers = serve(["Paris"]), serve(["Paris"])
    for one in servers:
        one.always = Fault(delay=60)
    backend = connect(*servers, deadline=2.0)
    with pytest.raises(EngineTimeoutError, match="deadline") as caught:
        backend.run(backend.generate(Request(PROMPT)))
    assert caught.value.is_retryable
    slow = connect(*servers, first_token_timeout=2.0)
    with pytest.raises(EngineTimeoutError, match="first token"):
        list(slow.iterate(slow.stream(Request(PROMPT))))
    assert sum(len(one.bodies()) for one in servers) == 2


def test_a_stream_has_a_deadline_as_a_whole(serve, connect):
    server = serve(["x" * 200])
    server.always = Fault(token_delay=0.05)
    backend = connect(server, deadline=2.0)
    with pytest.raises(EngineTimeoutError, match="deadline"):
        list(backend.iterate(backend.stream(Request(PROMPT))))


def test_the_queue_is_bounded(serve, connect):
    server = serve(["Paris"])
    backend = connect(server, max_in_flight=2)
    most = 0

    async def many(count: int) -> list:
        runs = [backend.generate(Request(PROMPT)) for _ in range(count)]
        return await asyncio.gather(*runs, return_exceptions=True)

    server.always = Fault(delay=0.02)
    original = server._completions

    async def counted(*arguments):
        nonlocal most
        server.counts["now"] += 1
        most = max(most, server.counts["now"])
        try:
            await original(*arguments)
        finally:
            server.counts["now"] -= 1

    server._completions = counted
    assert all(one[0].text == "Paris" for one in backend.run(many(20)))
    assert most == 2
    found = backend.run(many(60))
    refused = [one for one in found if isinstance(one, EngineBusyError)]
    assert len(refused) == 60 - 2 - 32 and "max_in_flight" in str(refused[0])


def test_who_waits_for_all_of_the_deadline_is_told_why(serve, connect):
    server = serve(["Paris"])
    server.always = Fault(delay=60)
    backend = connect(server, max_in_flight=1, deadline=2.0)

    async def two() -> list:
        runs = [backend.generate(Request(PROMPT)) for _ in range(2)]
        return await asyncio.gather(*runs, return_exceptions=True)

    found = backend.run(two())
    assert {type(one) for one in found} == {EngineTimeoutError, EngineBusyError}


def test_a_boundary_is_found_within_the_only_place_of_the_queue(serve, connect):
    backend = connect(serve(["one. two"], chunk=3), max_in_flight=1)
    (found,) = backend.run(backend.generate(Request(PROMPT, until=lambda text: "." in text)))
    assert found.text == "one."


def test_errors_within_a_stream_are_typed(serve, connect):
    server = serve(["Paris"])
    backend = connect(server)
    for code, kind in ((400, InvalidRequestError), (500, EngineError), ("x", EngineError)):
        stated = {"error": {"message": "it failed", "code": code}}
        server.faults = [Fault(change=lambda event, stated=stated: stated)]
        with pytest.raises(kind, match="it failed"):
            list(backend.iterate(backend.stream(Request(PROMPT))))
