"""Text from tokens, all at once and as they come."""

from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import Request, ScriptedBackend
from uq_llm_integrations.backends.codec import GrowingTexts, IncrementalText, split_text, top_texts


def decode(ids: list[int]) -> str:
    """Bytes as tokens."""
    return bytes(ids).decode(errors="replace")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_the_pieces_join_to_the_text(text):
    ids = list(text.encode())
    pieces = split_text(decode, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_belongs_to_the_token_that_completes_it():
    assert split_text(decode, list("aé".encode())) == ["a", "", "é"]


def test_a_text_cut_within_a_character_shows_that():
    assert split_text(decode, list("aé".encode())[:2]) == ["a", "\ufffd"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_incremental_text_joins_to_the_text(text):
    incremental = IncrementalText(decode, list(b"prompt"))
    assert "".join(map(incremental.add, text.encode())) == text


async def test_the_texts_of_a_stream_are_those_of_all_its_tokens():
    texts, ids = GrowingTexts(ScriptedBackend(["unused"])), list("héllo".encode())
    pieces = [text for part in (ids[:1], ids[1:3], ids[3:]) for text in await texts.of(part)]
    assert pieces == ["h", "", "é", "l", "l", "o"]


async def test_a_trace_without_alternatives_has_no_texts_of_them():
    backend = ScriptedBackend(["a"])
    (candidate,) = await backend.generate(Request((65,)))
    assert await top_texts(backend, candidate.trace) == {}
