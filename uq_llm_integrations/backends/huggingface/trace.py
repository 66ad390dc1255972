"""From logits to traces: what is known of the distribution that each token came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from uq_llm_integrations.backends.token_statistics import exact_statistics
from uq_llm_integrations.backends.token_statistics_torch import row_statistics
from uq_llm_integrations.records import Floats, TokenTrace

# Rows whose log-probabilities are held in float32 at a time.
_ROWS = 64


def trace_of(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> TokenTrace:
    """Return the exact trace of tokens [T] under logits [T, V], with the top k (-1: all)."""
    if not len(tokens):
        return empty_trace(logits.shape[-1], k)
    parts = zip(logits.split(_ROWS), tokens.split(_ROWS), strict=True)
    return joined([_trace(*part, k) for part in parts])


def empty_trace(size: int, k: int) -> TokenTrace:
    """Return the exact trace of no tokens, for a vocabulary of this size."""
    return _trace(torch.zeros(1, size), torch.zeros(1, dtype=torch.long), k)[:0]


def joined(traces: Sequence[TokenTrace]) -> TokenTrace:
    """Return the trace of all tokens, from one or more traces with the same fields."""
    first = traces[0]
    names = [f.name for f in fields(first) if isinstance(getattr(first, f.name), np.ndarray)]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in traces]) for name in names
    }
    return replace(first, **arrays)


def chosen_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of tokens [T] under logits [T, V], float32."""
    parts = zip(logits.split(_ROWS), tokens.split(_ROWS), strict=True)
    return torch.cat([_chosen(rows.log_softmax(-1, dtype=torch.float32), of) for rows, of in parts])


def _trace(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> TokenTrace:
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    chosen = _chosen(logprobs, tokens)
    # Models may set the logits of places that no token has to -inf.
    sums = _floats(row_statistics(logprobs, has_forbidden=True).sums)
    with np.errstate(invalid="ignore"):  # logits that are no numbers are told by the logprob
        statistics = exact_statistics(sums)
    ranks = (logprobs >= chosen[:, None]).sum(-1)
    return TokenTrace(
        vocabulary_size=logprobs.shape[-1],
        logprob=_floats(chosen),
        rank=ranks.cpu().numpy(),
        **_top(logprobs, k),
        **statistics,
    )


def _top(logprobs: torch.Tensor, k: int) -> dict[str, Any]:
    rows, size = logprobs.shape
    if not k:
        return {}
    if k == -1 or k >= size:
        ids = np.tile(np.arange(size), (rows, 1))
        return {"top_ids": ids, "top_logprobs": _floats(logprobs)}
    top = logprobs.topk(k)
    return {"top_ids": top.indices.cpu().numpy(), "top_logprobs": _floats(top.values)}


def _chosen(logprobs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logprobs.gather(-1, tokens[:, None])[:, 0]


def _floats(values: torch.Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array
