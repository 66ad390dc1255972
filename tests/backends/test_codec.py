from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.backends.codec import split_text


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
