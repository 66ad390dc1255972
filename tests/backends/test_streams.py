"""Streams with stop strings and characters of several tokens: the same of every backend."""

from collections.abc import Iterator
from typing import Any

import pytest

from uq_llm_integrations import Backend, HuggingFaceBackend, Request, ScriptedBackend
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.records import StreamPiece

SENTENCE = "The capital of France is Paris, a city."
CHARACTERS = "naïve 東京 🙂🙂 👩‍👩‍👧 🇫🇷 e\u0301"
GREEDY = {"temperature": 0, "max_tokens": 16}


@pytest.fixture(scope="module")
def hf() -> Iterator[Backend]:
    with HuggingFaceBackend("smollm2") as backend:
        yield backend


def engines(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.engine) for name in names]


@pytest.fixture(params=["scripted", *engines("hf", "backend")])
def served(request: pytest.FixtureRequest) -> Backend:
    """Backends that all say something about France."""
    if request.param == "scripted":
        return ScriptedBackend([SENTENCE])
    return request.getfixturevalue(request.param)


def request_of(served: Backend, **sampling: Any) -> Request:
    ids = served.run(served.encode("What is the capital of France?", chat=True))
    least = {} if not isinstance(served, ScriptedBackend) else {"max_tokens": 30}
    return Request(ids, sampling=GREEDY | least | sampling)


def streamed(served: Backend, request: Request) -> list[StreamPiece]:
    return list(served.iterate(served.stream(request)))


def check(pieces: list[StreamPiece]) -> None:
    """What every stream promises."""
    *before, last = pieces
    assert all(piece.candidate is None for piece in before)
    assert "".join(piece.text for piece in pieces) == last.candidate.text
    tokens = tuple(token for piece in pieces for token in piece.token_ids)
    assert tokens == last.candidate.token_ids
    assert sum(len(piece.trace) for piece in pieces) == len(tokens)


@pytest.mark.parametrize("is_shown", [False, True])
def test_no_part_of_a_stop_string_leaks(served, is_shown):
    (whole,) = served.run(served.generate(request_of(served)))
    for start in range(1, len(whole.text) - 8, 9):
        stop = whole.text[start : start + 7]
        cut = whole.text[: whole.text.find(stop)]
        sampling = {"stop": ["never", stop], "include_stop_str_in_output": is_shown}
        pieces = streamed(served, request_of(served, **sampling))
        check(pieces)
        assert pieces[-1].candidate.text == cut + stop * is_shown
        assert pieces[-1].candidate.stop_reason == stop


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end(served):
    (whole,) = served.run(served.generate(request_of(served)))
    stop = whole.text[-5:] + "…"
    pieces = streamed(served, request_of(served, stop=stop))
    check(pieces)
    assert pieces[-1].candidate.text == whole.text


def test_a_stream_without_stop_strings_holds_nothing_back(served):
    pieces = streamed(served, request_of(served))
    check(pieces)
    assert all(piece.text for piece in pieces[:-1])


def test_stop_strings_count_from_the_least_tokens_on(served):
    (whole,) = served.run(served.generate(request_of(served)))
    pieces = streamed(served, request_of(served, stop=[whole.text[:1]], min_tokens=4))
    check(pieces)
    assert len(pieces[-1].candidate.token_ids) > 4


def forced(served: Backend, text: str, **sampling: Any) -> list[StreamPiece]:
    """The stream of a given text."""
    grammar = {"structured_outputs": {"choice": [text]}, "temperature": 0, "max_tokens": 99}
    if isinstance(served, ScriptedBackend):
        served, grammar = ScriptedBackend([text]), {}
    return streamed(served, Request((65,), sampling=grammar | sampling))


@pytest.fixture(params=["scripted", *engines("backend")])
def forcible(request: pytest.FixtureRequest) -> Backend:
    """Backends that can be made to say any text."""
    if request.param == "scripted":
        return ScriptedBackend(["unused"])
    return request.getfixturevalue(request.param)


def test_a_character_of_several_tokens_comes_whole(forcible):
    pieces = forced(forcible, CHARACTERS)
    check(pieces)
    assert pieces[-1].candidate.text == CHARACTERS
    assert "\ufffd" not in "".join(piece.text for piece in pieces)


def test_a_stream_that_ends_within_a_character_ends_before_it(forcible):
    for most in (1, 5, 8, 9, 10, 11):
        pieces = forced(forcible, CHARACTERS, max_tokens=most)
        check(pieces)
        assert CHARACTERS.startswith(pieces[-1].candidate.text)


def test_a_stop_string_may_be_a_character_of_several_tokens(forcible):
    pieces = forced(forcible, CHARACTERS, stop=["京 🙂"])
    check(pieces)
    assert pieces[-1].candidate.text == "naïve 東"


async def test_a_block_closes_its_stream_however_it_is_left():
    ended = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    stream = numbers()  # held here, so that no garbage collector closes it
    async with closed_at_end(stream) as found:
        assert await anext(found) == 1
    assert ended == ["closed"]
    assert stream.ag_frame is None
