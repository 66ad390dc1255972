"""Rows that cannot be true: their scores are None with a reason, and the answer still arrives."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations import ScriptedBackend, TokenTrace, UncertaintyModel
from uq_llm_integrations.records import Candidate
from uq_llm_integrations.report.metadata import result_metadata

METHODS = ["perplexity", "maxprob", "entropy", "max_entropy", "TokenEntropy", "self_certainty"]
METHODS += ["MaximumTokenProbability", "renyi_neg", "fisher_rao"]
COLUMNS = ("logprob", "rank", "entropy", "varentropy", "mean_logprob", "root_sum")
COLUMNS += ("fourth_root_sum", "support", "entropy_lower", "entropy_upper", "missing_mass")

Change = Callable[[TokenTrace], TokenTrace]


class Damaged(ScriptedBackend):
    """A backend of a user's whose traces are not what they should be."""

    def __init__(self, change: Change, answers: Sequence[str] = ("Paris",)) -> None:
        super().__init__(answers)
        self._change = change

    def _damaged(self, candidate: Candidate) -> Candidate:
        return replace(candidate, trace=self._change(candidate.trace))

    async def generate(self, request, monitor=None):
        return [self._damaged(one) for one in await super().generate(request, monitor)]

    async def score_all(self, prompt_ids, continuations, top_logprobs=0):
        scored = await super().score_all(prompt_ids, continuations, top_logprobs)
        return [self._damaged(one) for one in scored]

    async def stream(self, request):
        async for piece in super().stream(request):
            whole = piece.candidate
            yield replace(piece, trace=self._change(piece.trace), candidate=whole)


def only_top(trace: TokenTrace, k: int = 3) -> TokenTrace:
    """What an engine gives that nobody has looked into: the top k."""
    rows, inexact = len(trace), dict.fromkeys(COLUMNS[2:])
    ids = np.tile(np.array([80, 97, 114]), (rows, 1))  # what is not of "Paris" is at most a tie
    top = np.full((rows, k), np.log(0.2))
    logprob, rank = np.full(rows, np.log(0.2)), np.full(rows, 1)
    return replace(
        trace,
        **inexact,
        logprob=logprob,
        rank=rank,
        top_ids=ids,
        top_logprobs=top,
        why_inexact="only the top is known",
    )


def at(name: str, token: int, value: float) -> Change:
    def change(trace: TokenTrace) -> TokenTrace:
        old = getattr(trace, name)
        new = np.array(np.zeros(len(trace)) if old is None else old, np.float64)
        if len(new):
            new[token % len(new)] = value
        return replace(trace, **{name: new})

    return change


IMPOSSIBLE = {
    "too few rows": lambda trace: trace[: len(trace) - 1],
    "no rows": lambda trace: trace[:0],
    "too many rows": lambda trace: trace.joined(trace),
    "a column that is short": lambda trace: replace(trace, entropy=trace.entropy[:1]),
    "no array": lambda trace: replace(trace, logprob=None),
    "text": lambda trace: replace(trace, logprob=np.array(["x"] * len(trace))),
    "two columns": lambda trace: replace(trace, logprob=np.zeros((len(trace), 2))),
    "no vocabulary": lambda trace: replace(trace, vocabulary_size=0),
    "a positive log-probability": at("logprob", 1, 5.0),
    "a log-probability of nothing": at("logprob", 1, -np.inf),
    "no number": at("logprob", 1, np.nan),
    "an infinite entropy": at("entropy", 1, np.inf),
    "an entropy that is no number": at("entropy", 1, np.nan),
    "a negative entropy": at("entropy", 1, -1.0),
    "an entropy above log V": at("entropy", 1, 6.0),
    "an entropy above its interval": at("entropy_upper", 0, 0.01),
    "the rank 0": at("rank", 1, 0),
    "a rank beyond the vocabulary": at("rank", 1, 257),
    "a mass above 1": at("missing_mass", 1, 1.5),
    "top masses above 1": lambda trace: replace(
        only_top(trace), top_logprobs=np.full((len(trace), 3), np.log(0.5))
    ),
    "a top that is no number": lambda trace: replace(
        only_top(trace), top_logprobs=np.full((len(trace), 3), np.nan)
    ),
    "top tokens without probabilities": lambda trace: replace(only_top(trace), top_logprobs=None),
    "rows of other tokens": lambda trace: replace(
        only_top(trace), logprob=np.full(len(trace), np.log(0.01))
    ),
    "top tokens that are none": lambda trace: replace(
        only_top(trace), top_ids=np.full((len(trace), 3), 256)
    ),
}


def check_unscored(result: Any) -> None:
    assert result.candidate.text == "Paris"
    assert result.trace.damage.startswith("the backend")
    for score in result.scores[0].values():
        assert (score.value, score.tokens, score.lower) == (None, None, None)
        assert score.reason == result.trace.damage


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_true_is_not_scored_and_the_answer_arrives(change):
    with UncertaintyModel(Damaged(change), methods=METHODS, token_scores=True) as model:
        check_unscored(model.generate("?"))
        check_unscored(model.score("?", "Paris"))
        (given,) = model.score_truncated("?", ["Paris"])
        assert given.scores["perplexity"].reason == given.candidate.trace.damage
        metadata = model.chat([{"role": "user", "content": "?"}]).replies[0].uncertainty
    json.dumps(metadata, allow_nan=False)
    assert metadata["by_token"]["token_id"] == list(b"Paris")


def test_rows_of_no_tokens_are_no_score():
    rows = TokenTrace(256, np.log(np.full(5, 0.5)))
    with UncertaintyModel(Damaged(lambda trace: rows, [""]), methods=["perplexity"]) as model:
        result = model.generate("?")
    assert result.text == "" and result.score("perplexity").value is None
    assert "5 rows for 0 tokens" in result.trace.damage


@pytest.mark.parametrize("change", [IMPOSSIBLE["no number"], IMPOSSIBLE["no rows"]])
def test_pieces_of_a_stream_are_checked_as_well(change):
    """Also where a condition reads them: what is not known ends the stream."""
    with UncertaintyModel(Damaged(change), methods=METHODS, token_scores=True) as model:
        pieces = list(model.stream([{"role": "user", "content": "?"}]))
        text = "".join(piece.part.content for piece in pieces)
        json.dumps([piece.uncertainty for piece in pieces], allow_nan=False)
        cut = list(model.stream([{"role": "user", "content": "?"}], stop_if="entropy > 9"))
    assert text == "Paris"
    assert cut[-1].result.candidate.finish_reason == "early_stop"


@pytest.mark.parametrize("strategy", ["best_of_n", "self_consistency", "stepwise"])
def test_a_strategy_chooses_among_what_is_damaged(strategy):
    backend = Damaged(IMPOSSIBLE["no number"], ["Paris", "Paris", "Paris"])
    with UncertaintyModel(backend, strategy={"type": strategy, "n": 3}, temperature=1) as model:
        assert model.generate("?").text == "Paris"


def test_conditions_count_what_is_damaged_as_uncertain():
    backend = Damaged(IMPOSSIBLE["a positive log-probability"])
    with UncertaintyModel(backend, uncertain_when="token_max(mean_nll) > 1") as model:
        assert model.generate("?").decision.is_uncertain


def test_other_methods_have_the_reason_too():
    """Of the answer itself, and of what they have generated or scored for it."""
    names = ["LexicalSimilarity", "mean_pmi", "boosted_prob", "PTrue", "entropy"]
    with UncertaintyModel(Damaged(IMPOSSIBLE["no number"]), methods=names) as model:
        check_unscored(model.generate("?"))


def test_what_is_beyond_0_by_rounding_is_0():
    def rounded(trace: TokenTrace) -> TokenTrace:
        return at("entropy", 0, -1e-5)(at("logprob", 0, 1e-5)(trace))

    with UncertaintyModel(Damaged(rounded), methods=METHODS) as model:
        result = model.generate("?")
    assert result.trace.damage is None
    assert (result.trace.logprob[0], result.trace.entropy[0]) == (0.0, 0.0)


def test_what_is_sound_stays_as_it_is():
    with UncertaintyModel(Damaged(only_top), methods=METHODS) as model:
        result = model.generate("?")
    assert result.trace.damage is None
    assert result.score("perplexity").value == pytest.approx(5.0)
    assert result.score("entropy").upper > 0


VALUES = st.one_of(
    st.floats(width=64),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-5, -1e-5, 1.0, 5.0, 1e300, -1e300]),
)
CHANGES = st.builds(at, st.sampled_from(COLUMNS), st.integers(0, 4), VALUES) | st.sampled_from(
    [*IMPOSSIBLE.values(), only_top]
)


@pytest.fixture(scope="module")
def model():
    with UncertaintyModel(Damaged(only_top), methods=METHODS) as model:
        yield model


@fuzz()
@given(change=CHANGES, after=CHANGES, is_top=st.booleans())
def test_no_trace_whatever_loses_an_answer_or_puts_nan_into_metadata(model, change, after, is_top):
    def changed(trace: TokenTrace) -> TokenTrace:
        try:
            return after(change(only_top(trace) if is_top else trace))
        except (TypeError, ValueError, AttributeError):  # one cannot be applied after the other
            return change(trace)

    model.backend._change = changed
    (candidate,) = result_metadata(model.generate("?"), [list("Paris")])["candidates"]
    assert candidate["text"] == "Paris"
    scores = candidate["uncertainty"]["scores"]
    unknown = {name for name, value in scores.items() if value is None}
    assert unknown == candidate["uncertainty"].get("reasons", {}).keys() & scores.keys()
    if scores["perplexity"] is not None:
        assert scores["perplexity"] >= 1
    json.dumps(candidate, allow_nan=False)
