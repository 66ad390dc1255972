"""The text that each token adds: whole and in a stream, for tokenizers of every kind."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream

from tests.backends.tiny_tokenizers import END, KINDS, tiny
from uq_llm_integrations import Candidate, ScriptedBackend, TokenTrace
from uq_llm_integrations.backends.codec import TokenizerBackend
from uq_llm_integrations.backends.token_texts import (
    GrowingTexts,
    IncrementalText,
    candidate_texts,
    split_text,
    text_decoder,
)

SIGNS = [
    "🙂",
    "👩‍👩‍👧",
    "🇫🇷",
    "é",
    "e\u0301",
    "東",
    "京",
    "ﬁ",
    "a",
    "the",
    "cat",
    " ",
    "  ",
    "\n",
    ".",
    "'s",
]
TEXTS = st.lists(st.sampled_from(SIGNS), max_size=8).map("".join)

every_kind = pytest.mark.parametrize("kind", KINDS)


class TinyBackend(TokenizerBackend, ScriptedBackend):
    """Has a real tokenizer of one kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(["unused"])
        self._kind = kind

    async def tokenizer(self) -> Any:
        return tiny(self._kind)


def ids_of(kind: str, text: str) -> list[int]:
    return tiny(kind).encode(text, add_special_tokens=False)


def sampled(kind: str) -> st.SearchStrategy[list[int]]:
    """Whatever a model may sample: bytes that are no character, special tokens, anything."""
    any_tokens = st.lists(st.integers(0, len(tiny(kind)) - 1), max_size=8)
    return st.lists(any_tokens | TEXTS.map(lambda text: ids_of(kind, text)), max_size=4).map(
        lambda parts: [token for part in parts for token in part]
    )


def content(kind: str, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """What vLLM's detokenizer gives, which begins anew where a prefix is invalid."""
    tokenizer, text = tiny(kind).backend_tokenizer, ""
    stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
    for token in ids:
        try:
            text += stream.step(tokenizer, token) or ""
        except Exception:
            stream = DecodeStream(skip_special_tokens=True)
            text += stream.step(tokenizer, token) or ""
    return text


def without_names(kind: str, ids: Sequence[int], texts: Sequence[str]) -> str:
    """The texts of all tokens but the special ones."""
    special = tiny(kind).convert_tokens_to_ids(END)
    return "".join(text for token, text in zip(ids, texts, strict=True) if token != special)


@every_kind
@given(st.data())
def test_the_texts_join_to_what_the_engine_says(kind, data):
    prompt = ids_of(kind, data.draw(TEXTS))
    ids = data.draw(sampled(kind))
    texts = split_text(text_decoder(tiny(kind)), ids, prompt)
    assert "".join(texts) == content(kind, prompt, ids)


@every_kind
@given(st.data())
async def test_a_stream_has_the_texts_of_the_whole(kind, data):
    prompt, ids = ids_of(kind, data.draw(TEXTS)), data.draw(sampled(kind))
    backend = TinyBackend(kind)
    whole = await GrowingTexts(backend, prompt).of(ids)
    assert without_names(kind, ids, whole) == content(kind, prompt, ids)
    texts, streamed = GrowingTexts(backend, prompt), list[str]()
    cuts = data.draw(st.lists(st.integers(0, len(ids)), max_size=6).map(sorted))
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        streamed += await texts.of(ids[start:end])
    assert streamed == whole


@every_kind
@given(st.data())
async def test_an_alternative_has_the_text_that_it_would_have_added(kind, data):
    prompt, ids = ids_of(kind, data.draw(TEXTS)), ids_of(kind, data.draw(TEXTS))
    backend, texts = TinyBackend(kind), GrowingTexts(TinyBackend(kind), prompt)
    whole = await texts.of(ids)
    others = data.draw(sampled(kind))[:4]
    rows = await texts.alternatives([[token, *others] for token in ids])
    assert [row[0] for row in rows] == whole
    for i, row in enumerate(rows):
        for other, text in zip(others, row[1:], strict=True):
            assert text == (await GrowingTexts(backend, prompt).of([*ids[:i], other]))[-1]


@every_kind
async def test_a_special_token_has_its_name(kind):
    special = tiny(kind).convert_tokens_to_ids(END)
    assert (await TinyBackend(kind).token_texts([*ids_of(kind, "cat"), special]))[-1] == END


def test_a_character_belongs_to_the_token_that_completes_it():
    assert split_text(_decode, list("aé".encode())) == ["a", "", "é"]


def test_a_text_cut_within_a_character_ends_before_it():
    """As the engine's content does."""
    assert split_text(_decode, list("aé".encode())[:2]) == ["a", ""]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_incremental_text_joins_to_the_text(text):
    incremental = IncrementalText(_decode, list(b"prompt"))
    assert "".join(map(incremental.add, text.encode())) == text


async def test_the_space_behind_the_prompt_belongs_to_a_generated_text_and_to_no_given_one():
    kind = "byte_fallback"
    prompt, ids = tuple(ids_of(kind, "the")), tuple(ids_of(kind, "cat"))
    for text in (" cat", "cat"):
        candidate = Candidate(prompt, ids, text, TokenTrace(9, [0.0] * len(ids)))
        assert "".join(await candidate_texts(TinyBackend(kind), candidate)) == text


def _decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")
