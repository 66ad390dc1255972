"""The kernel that computes a GPU's statistics, against float64."""

import numpy as np
import pytest
import torch

from uq_llm_integrations.backends.token_statistics import dense_rows
from uq_llm_integrations.backends.token_statistics_torch import (
    row_statistics,
    statistics_and_tokens,
    token_statistics,
)

EXACT = {"rtol": 1e-6, "atol": 1e-6}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("forbidden", [0, 30_000])
@pytest.mark.parametrize("size", [49_152, 50_257, 151_936])
@pytest.mark.parametrize("scale", [0.01, 3.0, 50.0])
@pytest.mark.parametrize("rows", [1, 9])
def test_statistics_are_exact(rows, scale, size, forbidden, dtype):
    torch.manual_seed(rows)
    logits = torch.empty(rows, size, device="cuda").normal_(7.0, scale).to(dtype)
    logits[:, size - forbidden :] = -torch.inf
    tokens = torch.randint(size - forbidden, (rows,), device="cuda")
    wide = logits.double().log_softmax(-1)
    own = wide.gather(-1, tokens[:, None])[:, 0].cpu()
    ranks = (logits >= logits.gather(-1, tokens[:, None])).sum(-1)
    has_forbidden = forbidden > 0

    sums, total = row_statistics(logits, has_forbidden=has_forbidden)
    found = token_statistics(logits, total, tokens).cpu()
    values, both_ranks = statistics_and_tokens(logits, tokens, has_forbidden=has_forbidden)

    np.testing.assert_allclose(sums.cpu(), dense_rows(wide.cpu().numpy()), **EXACT)
    np.testing.assert_allclose(total.cpu(), logits.double().logsumexp(-1).cpu(), **EXACT)
    assert found[:, 0].tolist() == tokens.tolist()
    np.testing.assert_allclose(found[:, 1], own, **EXACT)
    assert found[:, 2].tolist() == both_ranks.tolist() == ranks.tolist()
    np.testing.assert_array_equal(values[:, :-1].cpu(), sums.cpu())
    np.testing.assert_allclose(values[:, -1].cpu(), own, **EXACT)
