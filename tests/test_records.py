import numpy as np
import pytest

from uq_llm_integrations import Score, TokenTrace


def test_a_part_of_a_trace_is_a_trace():
    trace = TokenTrace(9, np.arange(4.0), entropy=np.arange(4.0), top_ids=np.ones((4, 2), int))
    part = trace[1:3]
    assert len(part) == 2
    np.testing.assert_array_equal(part.entropy, [1, 2])
    assert part.top_ids.shape == (2, 2)
    assert part.varentropy is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_unknown_score_is_never_a_number(value):
    with pytest.raises(ValueError, match="None with a reason"):
        Score("Perplexity", value)
