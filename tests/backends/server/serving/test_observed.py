"""From what the engine sends to the rows of each answer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from uq_llm_integrations.backends.server.serving.columns import packed
from uq_llm_integrations.backends.server.serving.marks import VALUES, Mark
from uq_llm_integrations.backends.server.serving.observed import (
    NO_COLUMNS,
    OTHER_TOKENS,
    RequestRows,
    without_columns,
)
from uq_llm_integrations.backends.token_statistics import column


def sent(tokens, *, k: int = 2, has_columns: bool = True) -> LogprobsLists:
    """What the engine sends of some tokens, whose log-probabilities are less their ids."""
    count = len(tokens)
    ids = torch.tensor(tokens, dtype=torch.int32)[:, None].expand(-1, k + 1)
    logprobs = torch.full((count, k + 1), -1.0)
    if has_columns:
        values = torch.ones(count, VALUES, dtype=torch.float64)
        values[:, -1] = -torch.tensor(tokens, dtype=torch.float64)
        columns = packed(values, torch.int32)
        ids = torch.cat([ids, columns.ids], dim=1)
        logprobs = torch.cat([logprobs, columns.logprobs], dim=1)
    return LogprobsLists(ids.numpy(), logprobs.numpy(), np.arange(1, count + 1), None)


def as_tensors(lists: LogprobsLists) -> LogprobsTensors:
    return LogprobsTensors(*(torch.as_tensor(one) for one in lists[:3]))


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3), min_size=1, max_size=5))
def test_the_deltas_are_the_whole(steps):
    deltas, whole = RequestRows(Mark(), [1]), RequestRows(Mark(), [1])
    parts = []
    for tokens in steps:
        deltas.add(sent(tokens))
        whole.add(sent(tokens))
        parts.append(deltas.taken(tokens, is_delta=True))
    tokens = [one for step in steps for one in step]
    everything = whole.taken(tokens, is_delta=False)
    np.testing.assert_array_equal(np.concatenate([one.rows for one in parts]), everything.rows)
    assert everything.why_inexact is None
    assert column(everything.rows, "logprob").tolist() == [-one for one in tokens]


def test_a_step_without_columns_is_not_exact():
    rows = RequestRows(Mark(), [1])
    rows.add(sent([4]))
    rows.add(sent([5], has_columns=False))
    found = rows.taken([4, 5], is_delta=False)
    assert found.why_inexact == NO_COLUMNS
    assert np.isnan(found.rows[1]).all() and not np.isnan(found.rows[0]).any()


def test_rows_of_other_tokens_are_none():
    rows = RequestRows(Mark(), [1])
    rows.add(sent([4, 5]))
    found = rows.taken([4, 6], is_delta=False)
    assert found.why_inexact == OTHER_TOKENS and np.isnan(found.rows).all()


def test_tokens_without_rows_and_rows_without_tokens():
    rows = RequestRows(Mark(), [1])
    rows.add(sent([4]))
    assert rows.taken([4, 5], is_delta=False).why_inexact == NO_COLUMNS
    rows.add(sent([5]))
    assert len(rows.taken([4], is_delta=False).rows) == 1  # a stop string cut the rest off


@pytest.mark.parametrize("first", [0, 1, 2, 4, 5])
def test_a_prompts_rows_are_those_of_its_last_tokens(first):
    """V1 sends a row for each token but the first, V2 leaves those out that it did not compute."""
    prompt = [10, 11, 12, 13, 14]
    for computed in (prompt[1:], prompt[max(first, 1) :]):
        rows = RequestRows(Mark(first), prompt)
        if computed:
            rows.add_prompt(as_tensors(sent(computed)))
        found = rows.scored_prompt()
        if first < 5:
            expected = [-one for one in prompt[max(first, 1) :]]
            tail = found.rows[1:] if first == 0 else found.rows
            assert column(tail, "logprob").tolist() == expected
            assert found.why_inexact is None
        assert len(found.rows) == len(prompt) - first


def test_a_prompt_that_was_not_scored_says_so():
    rows = RequestRows(Mark(1), [10, 11])
    assert rows.scored_prompt().why_inexact == NO_COLUMNS
    assert RequestRows(Mark(), [10, 11]).scored_prompt() is None


@pytest.mark.parametrize("make", [lambda one: one, as_tensors])
def test_what_was_asked_for_is_left(make):
    plain, wide = make(sent([4, 5], has_columns=False)), make(sent([4, 5]))
    left = without_columns(wide)
    assert type(left) is type(plain)
    for found, expected in zip(left[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert without_columns(plain) is plain
