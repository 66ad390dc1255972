"""The sums of whole distributions, computed in blocks on their device."""

import runpy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.backends import token_statistics_torch as device_sums
from uq_llm_integrations.backends.token_statistics import dense_rows
from uq_llm_integrations.backends.token_statistics_torch import (
    RowStatistics,
    row_statistics,
    statistics_and_tokens,
    token_statistics,
)


def logits_of(seed: int, rows: int, size: int, scale: float = 3.0, mean: float = 0.0):
    logits = np.random.default_rng(seed).normal(mean, scale, (rows, size))
    return torch.tensor(logits, dtype=torch.float32)


def assert_statistics(found: RowStatistics, logits: torch.Tensor) -> None:
    logits = logits.double()
    expected = dense_rows(logits.log_softmax(-1).numpy())
    np.testing.assert_allclose(found.sums, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.total, logits.logsumexp(-1), rtol=0, atol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    scale=st.floats(0.01, 50),
    mean=st.floats(-100, 100),
)
def test_the_sums_equal_those_of_the_whole_distribution(seed, rows, scale, mean):
    logits = logits_of(seed, rows, 40_000, scale, mean)
    assert_statistics(row_statistics(logits), logits)


@pytest.fixture(scope="module")
def uncompiled() -> Callable[[torch.Tensor], RowStatistics]:
    """What computes the sums where torch leaves functions as they are.

    Compiled functions would then hold every term of every row at once, so none may be used.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        patch.setattr(torch, "compile", None)
        return runpy.run_path(device_sums.__file__)["row_statistics"]


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 50))
def test_they_do_so_without_a_compiler(uncompiled, seed, scale):
    logits = logits_of(seed, 30, 40_000, scale)
    assert_statistics(uncompiled(logits), logits)


def test_forbidden_tokens_are_left_out():
    logits = logits_of(1, 2, 31)
    logits[0, 5:] = -torch.inf
    found = row_statistics(logits, has_forbidden=True)
    assert_statistics(found, logits)
    assert found.sums[:, 5].tolist() == [5, 31]


def test_half_precision_is_summed_in_full():
    logits = logits_of(1, 2, 40_000).bfloat16()
    assert_statistics(row_statistics(logits), logits)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9))
def test_tokens_have_their_log_probabilities_and_ranks(seed, rows):
    logits = logits_of(seed, rows, 40_000)
    tokens = torch.tensor(np.random.default_rng(seed).integers(0, 40_000, rows))
    found = token_statistics(logits, row_statistics(logits).total, tokens).numpy()
    logprobs = logits.double().log_softmax(-1)[range(rows), tokens]
    ranks = (-logits).argsort(-1).argsort(-1)[range(rows), tokens] + 1
    np.testing.assert_array_equal(found[:, 0], tokens)
    np.testing.assert_allclose(found[:, 1], logprobs, rtol=0, atol=1e-6)
    assert (np.abs(found[:, 2] - ranks.numpy()) <= 1).all()  # of tokens with equal logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("forbidden", [0, 39_000])
def test_both_at_once_are_the_same(dtype, forbidden):
    logits = logits_of(1, 3, 40_000).to(dtype)
    logits[:, 40_000 - forbidden :] = -torch.inf
    has_forbidden, tokens = bool(forbidden), torch.tensor([5, 70, 900])
    values, ranks = statistics_and_tokens(logits, tokens, has_forbidden=has_forbidden)
    sums, total = row_statistics(logits, has_forbidden=has_forbidden)
    own = token_statistics(logits, total, tokens)
    np.testing.assert_allclose(values, torch.cat([sums, own[:, 1:2]], -1), rtol=1e-6, atol=1e-6)
    assert ranks.tolist() == own[:, 2].tolist()


def test_what_others_mark_for_their_compiled_code_compiles_nothing_here():
    with torch.inference_mode():
        device_sums.warm_up(1031, torch.float32, torch.device("cpu"))
        device_sums.warm_up_both(1031, torch.bfloat16, torch.device("cpu"))
        logits, tokens = logits_of(1, 4, 1031), torch.zeros(4, dtype=torch.long)
        half = logits.bfloat16()
        for one in (logits, half):
            torch._dynamo.decorators.mark_unbacked(one, 0)  # as vLLM does in `gather_logprobs`
        with torch.compiler.set_stance("fail_on_recompile"):
            found = row_statistics(logits)
            token_statistics(logits, found.total, tokens)
            statistics_and_tokens(half, tokens)
    assert_statistics(found, logits)
