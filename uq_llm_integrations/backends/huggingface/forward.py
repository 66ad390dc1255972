"""Forward passes, and from their logits to traces."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from uq_llm_integrations.backends.token_statistics import empty_trace, exact_statistics, join_traces
from uq_llm_integrations.backends.token_statistics_torch import row_statistics
from uq_llm_integrations.records import Floats, Integers, TokenTrace

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

Ids = tuple[int, ...]

# Rows whose log-probabilities are held in float32 at a time.
_ROWS = 64


def forward(model: PreTrainedModel, ids: torch.Tensor, **arguments: object) -> ModelOutput:
    """Return the model's output for token ids [rows, tokens]."""
    with torch.inference_mode():
        return model(ids.to(model.device), **arguments)


def padded_pass(model: PreTrainedModel, texts: Sequence[Ids], **arguments: object) -> ModelOutput:
    """Return the model's output for whole texts, padded on the right."""
    width = max(map(len, texts))
    rows = [[*text, *[0] * (width - len(text))] for text in texts]
    if any(len(text) < width for text in texts):
        mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        arguments["attention_mask"] = torch.tensor(mask, device=model.device)
    return forward(model, torch.tensor(rows), use_cache=False, **arguments)


def last_logits(model: PreTrainedModel, count: int) -> dict[str, int]:
    """Return the argument that has a model compute no more than its last logits."""
    takes_it = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if takes_it else {}


def trace_of(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> TokenTrace:
    """Return the exact trace of tokens [T] under logits [T, V], with the top k (-1: all)."""
    if not len(tokens):
        return empty_trace(logits.shape[-1], k)
    parts = zip(logits.split(_ROWS), tokens.split(_ROWS), strict=True)
    return join_traces([_trace(*part, k) for part in parts])


def chosen_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of tokens [T] under logits [T, V], float32."""
    parts = zip(logits.split(_ROWS), tokens.split(_ROWS), strict=True)
    return torch.cat([_chosen(rows.log_softmax(-1, dtype=torch.float32), of) for rows, of in parts])


def _trace(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> TokenTrace:
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    chosen = _chosen(logprobs, tokens)
    # Models may set the logits of ids that no token has to -inf.
    sums = _floats(row_statistics(logprobs, has_forbidden=True).sums)
    with np.errstate(invalid="ignore"):  # logits that are no numbers show in the logprob
        statistics = exact_statistics(sums)
    ranks = (logprobs >= chosen[:, None]).sum(-1)
    return TokenTrace(
        vocabulary_size=logprobs.shape[-1],
        logprob=_floats(chosen),
        rank=ranks.cpu().numpy(),
        **_top(logprobs, k),
        **statistics,
    )


class _Top(TypedDict, total=False):
    top_ids: Integers
    top_logprobs: Floats


def _top(logprobs: torch.Tensor, k: int) -> _Top:
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
