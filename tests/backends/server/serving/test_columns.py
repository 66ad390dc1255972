"""Statistics as columns of log-probabilities, and back."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.backends.server.serving.columns import (
    has_columns,
    packed,
    rows_of,
    tokens_of,
    unknown_rows,
)
from uq_llm_integrations.backends.server.serving.marks import WIDTH
from uq_llm_integrations.backends.token_statistics import SUMS, column

VALUES = st.lists(
    st.lists(st.floats(width=64), min_size=len(SUMS) + 1, max_size=len(SUMS) + 1),
    min_size=1,
    max_size=4,
)


@given(VALUES, st.sampled_from([torch.int32, torch.int64]))
def test_every_float64_comes_back_bit_by_bit(values, ids_type):
    given_values = torch.tensor(values, dtype=torch.float64)
    columns = packed(given_values, ids_type)
    ids = torch.cat([torch.full((len(values), 1), 7, dtype=ids_type), columns.ids], dim=1)
    rows = rows_of(ids.numpy(), np.full(len(values), 3))
    np.testing.assert_array_equal(rows[:, : len(SUMS)], given_values[:, :-1].numpy())
    np.testing.assert_array_equal(column(rows, "logprob"), given_values[:, -1].numpy())
    assert column(rows, "token").tolist() == [7.0] * len(values)
    assert column(rows, "rank").tolist() == [3.0] * len(values)


def test_log_probabilities_are_never_taken_for_columns():
    assert not has_columns(np.zeros((3, WIDTH + 1), np.float32))
    assert not has_columns(np.full((0, WIDTH + 1), 1.0, np.float32))
    assert not has_columns(np.full((3, WIDTH), 1.0, np.float32))
    assert has_columns(np.full((3, WIDTH + 1), 1.0, np.float32))


def test_a_row_of_which_nothing_is_known_is_no_tokens():
    assert tokens_of(unknown_rows(2)).tolist() == [-1, -1]
