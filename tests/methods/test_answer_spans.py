"""Scores of the part of an answer that a pattern or a function finds."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.helpers import NATS, request, scored
from uq_llm_integrations import (
    MethodUnavailableError,
    Result,
    ScriptedBackend,
    ScriptedLine,
    TokenTrace,
    UncertaintyModel,
)
from uq_llm_integrations.methods.answer_spans import find_span
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.scoring import score_trace
from uq_llm_integrations.methods.token_alignment import token_spans, tokens_within

NAMES = ["span_sequence_probability", "span_perplexity", "span_mean_entropy"]


class Rising(ScriptedBackend):
    """Gives token t the negative log-probability t + 1 and the entropy 10 (t + 1)."""

    async def generate(self, request, monitor=None):
        found = await super().generate(request, monitor)
        for one in found:
            one.trace.logprob[:] = -np.arange(1.0, 1 + len(one.token_ids))
            one.trace.entropy[:] = 10 * np.arange(1.0, 1 + len(one.token_ids))
        return found


async def numbers(script: list[str], span) -> Result:
    return await scored(None, *NAMES, backend=Rising(script), n=len(script), span=span)


async def test_only_the_tokens_of_the_group_count():
    result = await numbers(["So: Oslo."], r"So: (\w+)")
    assert result.score("span_sequence_probability").value == pytest.approx(5 + 6 + 7 + 8)
    assert result.score("span_perplexity").value == pytest.approx(np.exp(6.5))
    assert result.score("span_mean_entropy").value == pytest.approx(65)


async def test_a_pattern_without_a_group_finds_all_that_it_matches():
    result = await numbers(["So: Oslo."], r"O\w+")
    assert result.score("span_sequence_probability").value == pytest.approx(5 + 6 + 7 + 8)


async def test_a_function_finds_it_too():
    result = await numbers(["7 is no 42"], lambda text: (text.rindex(" ") + 1, len(text)))
    assert result.score("span_sequence_probability").value == pytest.approx(9 + 10)


async def test_all_bytes_of_a_character_count():
    """A token is a byte here, and both of é are one character."""
    result = await numbers(["aéb"], "é")
    assert result.score("span_sequence_probability").value == pytest.approx(2 + 3)


async def test_the_whole_answer_has_the_scores_of_the_answer():
    names = [*NAMES, "maxprob", "perplexity", "entropy"]
    result = await scored(["Oslo, in Norway"], *names, span="(?s).+")
    assert result.score("span_sequence_probability").value == pytest.approx(15 * NATS)
    for span, whole in zip(NAMES, names[3:], strict=True):
        assert result.score(span).value == pytest.approx(result.score(whole).value)


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ("Rome", "the answer has no part that the span finds"),
        ("Oslo|(Rome)", "the answer has no part that the span finds"),
        (lambda text: None, "the answer has no part that the span finds"),
        ("x*", "the span from 0 to 0 is empty"),
        (lambda text: (0, 99), "the span from 0 to 99 is no part of 4 characters"),
        (lambda text: (3, 1), "the span from 3 to 1 is no part of 4 characters"),
        (lambda text: 1 / 0, "the span cannot be found: division by zero"),
        (lambda text: "?", "the span cannot be found: "),
    ],
)
async def test_a_part_that_is_not_there_is_a_reason_and_costs_no_other_score(span, reason):
    result = await scored(["Oslo"], *NAMES, "perplexity", span=span)
    for name in NAMES:
        assert result.score(name).value is None
        assert result.score(name).reason.startswith(reason)
    assert result.score("perplexity").is_known


async def test_each_candidate_has_a_part_of_its_own():
    script = [ScriptedLine("a: 1", 0.5), ScriptedLine("none", 0.5), ScriptedLine("a: 22", 0.5)]
    result = await scored(script, "span_sequence_probability", n=3, span=r"\d+")
    found = [scores["span_sequence_probability"].value for scores in result.scores]
    assert found == [pytest.approx(np.log(2)), None, pytest.approx(2 * np.log(2))]


def test_without_a_span_the_methods_are_refused_at_construction():
    with pytest.raises(MethodUnavailableError, match=r"MethodOptions\(span="):
        UncertaintyModel(ScriptedBackend(["Oslo"]), methods=["span_perplexity"])


@given(st.text(min_size=1, max_size=12), st.data())
def test_the_tokens_of_a_part_are_the_bytes_of_its_characters(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = (len(text[:edge].encode()) for edge in (start, end))
    spans = asyncio.run(spans_of(text))
    assert tokens_within(spans, (start, end)) == tuple(range(first, last))


async def spans_of(text: str) -> list[tuple[int, int]]:
    backend = ScriptedBackend([text])
    (candidate,) = await backend.generate(request())
    return await token_spans(backend, candidate)


def test_the_first_match_counts():
    assert find_span(r"\d", "a 1 b 2") == (2, 3)


@pytest.mark.parametrize("count", [1, 2, 7, 95])
def test_the_length_adjusted_sum_is_that_of_the_paper(count):
    """Wu et al. 2016: log P / lp, lp = (5 + T)^a / (5 + 1)^a."""
    trace = TokenTrace(10, np.full(count, -0.7))
    penalty = (5 + count) ** 0.6 / 6**0.6
    score = score_trace(trace, find_method("length_adjusted_nll"))
    assert score.value == pytest.approx(0.7 * count / penalty)
    assert 0.7 <= score.value <= 0.7 * count
