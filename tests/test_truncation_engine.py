"""Truncated text on the real engine: slices, and passes for what was not generated."""

from contextlib import aclosing

import numpy as np
import pytest
from vllm.v1.metrics.reader import get_metrics_snapshot

from uq_llm_integrations import EngineError, Request, score_truncated_sequence
from uq_llm_integrations.truncation import score_truncated_texts

pytestmark = pytest.mark.engine

TOLERANCE = 2e-3
"""Nats between generating token by token and one pass over all of them, in float32."""


def prompt_tokens_computed() -> float:
    names = {"vllm:prompt_tokens", "vllm:generation_tokens"}
    return sum(m.value for m in get_metrics_snapshot() if m.name in names)


@pytest.fixture(scope="module")
def story(backend):
    """A text with multi-byte characters, sampled hot, so that it is tokenised oddly."""
    prompt = "The word for cat in French, Greek, Chinese, Hindi, emoji: chat, γάτα, 猫, बिल्ली, 😺🐈"
    ids = backend.run(backend.encode(prompt))
    sampling = {"max_tokens": 210, "temperature": 1.1, "seed": 8, "ignore_eos": True}
    return backend.run(backend.generate(Request(ids, sampling=sampling)))[0]


def test_slices_equal_a_fresh_full_pass_at_every_cut(backend, story):
    """At 211 cuts in tokens; the pass reads no cache, and its rows are those of every cut."""
    full = backend.run(backend.score(story.prompt_ids, story.token_ids))
    assert not full.cached_tokens
    assert full.trace.is_exact
    before = prompt_tokens_computed()
    for tokens in range(len(story.token_ids) + 1):
        cut = score_truncated_sequence(
            backend, story.prompt_ids, story.token_ids[:tokens], [story], ["mean_nll", "entropy"]
        )
        assert cut.is_sliced and cut.usage.forward_passes == 0
        trace = cut.candidate.trace
        np.testing.assert_allclose(trace.logprob, full.trace.logprob[:tokens], atol=TOLERANCE)
        np.testing.assert_allclose(trace.entropy, full.trace.entropy[:tokens], atol=TOLERANCE)
        if tokens:
            expected = -full.trace.logprob[:tokens].mean()
            assert cut.scores["mean_nll"].value == pytest.approx(expected, abs=TOLERANCE)
        else:
            assert cut.scores["mean_nll"].value is None
    assert prompt_tokens_computed() == before


async def test_cuts_at_every_character_never_misalign(backend, story):
    """Also within tokens and between the tokens of one character."""
    pieces = await backend.token_texts(story.token_ids)
    text = "".join(pieces)
    assert any(not piece for piece in pieces), "no character of several tokens was sampled"
    before = prompt_tokens_computed()
    cuts = [text[:end] for end in range(len(text) + 1)]
    scored = await score_truncated_texts(backend, Request(story.prompt_ids), cuts, [story])
    assert prompt_tokens_computed() == before
    within = 0
    for cut, one in zip(cuts, scored, strict=True):
        kept = len(one.candidate.token_ids)
        assert one.candidate.text + one.unscored_text == cut
        assert one.candidate.token_ids == story.token_ids[:kept]
        np.testing.assert_array_equal(one.candidate.trace.logprob, story.trace.logprob[:kept])
        within += bool(one.unscored_text)
    assert within > 100


def test_a_cut_within_a_token_is_healed_by_a_pass_for_the_rest(backend, capital_ids):
    (answer,) = backend.run(
        backend.generate(Request(capital_ids, sampling={"temperature": 0, "max_tokens": 12}))
    )
    text = "The capital of Fra"
    assert answer.text.startswith(text)
    recorded = score_truncated_sequence(backend, capital_ids, text, [answer])
    assert (recorded.candidate.text, recorded.unscored_text) == ("The capital of", " Fra")
    healed = score_truncated_sequence(backend, capital_ids, text, [answer], heal=True)
    assert (healed.candidate.text, healed.unscored_text) == (text, "")
    assert healed.usage.forward_passes == 1
    kept = len(recorded.candidate.token_ids)
    full = backend.run(backend.score(capital_ids, healed.candidate.token_ids))
    np.testing.assert_allclose(healed.candidate.trace.logprob, full.trace.logprob, atol=TOLERANCE)
    assert healed.candidate.token_ids[:kept] == answer.token_ids[:kept]


def test_text_that_is_tokenised_otherwise_is_marked(backend, capital_ids):
    odd = tuple(backend.run(backend.encode_continuation(" F"))) + tuple(
        backend.run(backend.encode_continuation("rance"))
    )
    scored = backend.run(backend.score(capital_ids, odd))
    cut = score_truncated_sequence(backend, capital_ids, " France", [scored])
    assert cut.is_sliced
    assert cut.candidate.token_ids == odd
    assert cut.first_difference == 0


@pytest.mark.parametrize("length", [40, 128, 200, 256])
def test_foreign_text_behind_a_cached_prompt_equals_a_full_pass(backend, length):
    """128 and 256 fill blocks of the cache, where the first token's row would be missing."""
    rng = np.random.default_rng(length)
    prompt = tuple(rng.integers(100, 40_000, length).tolist())
    texts = [tuple(rng.integers(100, 40_000, n).tolist()) for n in (1, 2, 7, 12)]
    backend.run(backend.generate(Request(prompt, sampling={"max_tokens": 2})))
    scored = backend.run(backend.score_all(prompt, texts, 3))
    for ids, one in zip(texts, scored, strict=True):
        assert one.token_ids == ids
        assert one.trace.is_exact
        assert one.cached_tokens == (length // 128 * 128 if len(ids) > 1 else one.cached_tokens)
        # In one pass, behind a prompt that was never seen and is one token shorter.
        whole = backend.run(backend.score(prompt[:1], prompt[1:] + ids, 3))
        rows = slice(length - 1, None)
        for name in ("logprob", "entropy", "varentropy", "top_logprobs"):
            np.testing.assert_allclose(
                getattr(one.trace, name),
                getattr(whole.trace, name)[rows],
                atol=TOLERANCE,
                err_msg=name,
            )
        np.testing.assert_array_equal(one.trace.top_ids[:, 0], whole.trace.top_ids[rows][:, 0])


def test_a_continuation_that_is_in_the_cache_itself_is_passed_in_full(backend):
    """Its own rows would come back as uninitialised memory."""
    rng = np.random.default_rng(7)
    prompt = tuple(rng.integers(100, 40_000, 130).tolist())
    ids = tuple(rng.integers(100, 40_000, 140).tolist())
    backend.run(backend.generate(Request(prompt + ids, sampling={"max_tokens": 2})))
    cached = backend.run(backend.score(prompt, ids))
    whole = backend.run(backend.score(prompt[:1], prompt[1:] + ids))
    np.testing.assert_allclose(cached.trace.logprob, whole.trace.logprob[129:], atol=TOLERANCE)
    assert cached.cached_tokens == 0


def test_where_the_probe_missed_the_first_token_all_is_passed_in_full(backend, monkeypatch):
    prompt = tuple(np.random.default_rng(9).integers(100, 40_000, 128).tolist())
    expected = backend.run(backend.score(prompt, (504, 3575)))
    process = backend.start()
    take = process.take

    async def missing(name, deadline, read):
        kept = await take(name, deadline, read)
        return kept[:0] if name.endswith("-tokens") else kept

    monkeypatch.setattr(process, "take", missing)
    scored = backend.run(backend.score(prompt, (504, 3575)))
    assert scored.trace.is_exact and scored.cached_tokens == 0
    np.testing.assert_allclose(scored.trace.logprob, expected.trace.logprob, atol=TOLERANCE)


def test_a_text_that_fails_neither_shifts_nor_loses_the_others(backend, capital_ids, monkeypatch):
    process = backend.start()
    outputs = process.outputs

    async def failing(ids, *arguments):
        if ids == [*capital_ids, 7]:
            raise EngineError("broken")
        async with aclosing(outputs(ids, *arguments)) as found:
            async for output in found:
                yield output

    monkeypatch.setattr(process, "outputs", failing)
    scored = backend.run(backend.score_all(capital_ids, [(504,), (7,), (504, 3575)]))
    assert [one.token_ids for one in scored] == [(504,), (), (504, 3575)]
    assert str(scored[1].error) == "broken"
    with pytest.raises(EngineError, match="broken"):
        backend.run(backend.score(capital_ids, (7,)))


def test_nothing_to_score_costs_nothing(backend, capital_ids):
    before = prompt_tokens_computed()
    assert len(backend.run(backend.score(capital_ids, ())).trace) == 0
    assert prompt_tokens_computed() == before
