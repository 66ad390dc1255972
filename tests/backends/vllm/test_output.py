"""Translation of vLLM's outputs, without an engine."""

from types import SimpleNamespace

import numpy as np
import pytest
from vllm.logprobs import FlatLogprobs

from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.backends.vllm.output import LogprobTable, candidate_of


def flat(*rows: list[tuple[int, float, int]] | None) -> FlatLogprobs:
    """Rows of (token id, log-probability, rank), the sampled token first."""
    logprobs = FlatLogprobs()
    for row in rows:
        if row is None:
            logprobs.append(None)
        else:
            ids, values, ranks = zip(*row, strict=True)
            logprobs.append_fast(list(ids), list(values), ranks, [None] * len(ids))
    return logprobs


def output(token_ids: list[int], logprobs: FlatLogprobs) -> SimpleNamespace:
    sample = SimpleNamespace(
        token_ids=token_ids, text="x", logprobs=logprobs, finish_reason="stop", stop_reason=None
    )
    return SimpleNamespace(outputs=[sample], prompt_token_ids=[1, 2], num_cached_tokens=None)


def kept(*tokens: tuple[int, float, int], stopped: tuple[int, ...] = ()) -> np.ndarray:
    """What the probe keeps of tokens sampled from four that are as likely as each other."""
    rows = np.ones((len(tokens), len(COLUMNS)))
    rows[:, COLUMNS.index("stopped")] = [index in stopped for index in range(len(tokens))]
    rows[:, -3:] = tokens
    return rows


def test_the_sampled_token_is_kept_apart_from_the_top_k():
    rows = flat(
        [(7, -0.5, 1), (7, -0.5, 1), (8, -1.0, 2)],
        [(9, -4.0, 30), (5, -0.1, 1), (6, -3.0, 2)],
    )
    trace = candidate_of(output([7, 9], rows), 100, None, "why").trace
    np.testing.assert_array_equal(trace.logprob, [-0.5, -4.0])
    np.testing.assert_array_equal(trace.rank, [1, 30])
    np.testing.assert_array_equal(trace.top_ids, [[7, 8], [5, 6]])
    assert not trace.is_exact
    assert trace.why_inexact == "why"


def test_rows_beyond_the_last_token_are_dropped():
    """The engine goes on for a step or two before it hears of a stop string."""
    rows = kept((7, -0.5, 1), (8, -0.5, 1), (9, -0.5, 1))
    trace = candidate_of(output([7], flat([(7, -0.5, 1)])), 100, rows, None).trace
    assert len(trace.entropy) == 1
    assert trace.is_exact


def test_too_few_rows_leave_the_entropy_unknown():
    rows = kept((7, -0.5, 1))
    logprobs = flat([(7, -0.5, 1)], [(8, -0.5, 1)])
    trace = candidate_of(output([7, 8], logprobs), 100, rows, None).trace
    assert not trace.is_exact
    assert trace.why_inexact == "the probe saw 1 of 2 tokens"


@pytest.mark.parametrize(
    ("token_ids", "logprobs"),
    [
        ([7, 8], flat([(7, -0.5, 1)])),
        ([7], flat([(8, -0.5, 1)])),
    ],
)
def test_rows_of_other_tokens_are_a_reason_not_a_score(token_ids, logprobs):
    candidate = candidate_of(output(token_ids, logprobs), 100, None, None)
    assert candidate.token_ids == tuple(token_ids)
    assert "log-probabilities" in candidate.trace.damage


def test_what_the_probe_kept_of_the_tokens_stands_in_for_the_engines():
    rows = kept((7, -0.5, 1), (8, -2.0, 4), (9, -0.1, 1))
    trace = candidate_of(output([7, 8], None), 100, rows, None).trace
    np.testing.assert_array_equal(trace.logprob, [-0.5, -2.0])
    np.testing.assert_array_equal(trace.rank, [1, 4])
    assert trace.top_logprobs is None
    for other, why in ((rows[1:], "other tokens"), (rows[:1], "saw 1 of 2 tokens")):
        assert why in candidate_of(output([7, 8], None), 100, other, None).trace.damage


def test_scored_tokens_have_the_rows_behind_the_prompt():
    rows = flat(None, [(2, -9.0, 9)], [(7, -0.5, 1)], [(8, -0.7, 2)])
    table = LogprobTable.read(rows, (1, 2, 7, 8), first=2)
    np.testing.assert_array_equal(table.logprob, [-0.5, -0.7])


def test_the_token_that_an_early_stop_forced_is_left_out():
    rows = kept((7, -0.5, 1), (99, -3.0, 9), stopped=(1,))
    logprobs = flat([(7, -0.5, 1)], [(99, -30.0, 90)])
    candidate = candidate_of(output([7, 99], logprobs), 100, rows, None)
    assert candidate.token_ids == (7,)
    assert len(candidate.trace) == 1
    assert (candidate.finish_reason, candidate.stop_reason) == ("early_stop", None)
    assert not candidate.is_whole
