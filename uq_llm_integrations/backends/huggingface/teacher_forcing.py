"""Teacher forcing: what the model gives to tokens that are already there.

The prompt passes through the model once and its continuations behind what was kept of it, where the
model keeps nothing but keys and values; behind any other model, all pass as a whole.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from uq_llm_integrations.backends.huggingface.forward import (
    Ids,
    forward,
    last_logits,
    padded_pass,
    trace_of,
)
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, TokenTrace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHED_PER_TOKEN = 4
"""How many tokens of which keys and values are kept need the memory of one that passes."""

# Layers that leave alone what they were given when they take in more.
_SHAREABLE = (DynamicLayer, DynamicSlidingWindowLayer)


def score_texts(
    model: PreTrainedModel, texts: Sequence[Ids], start: int, k: int
) -> list[TokenTrace]:
    """Return the traces of texts from token `start` on, from one pass padded on the right."""
    kept = max(map(len, texts)) - start + 1  # the first token is scored behind the one before it
    logits = padded_pass(model, texts, **last_logits(model, kept)).logits[:, -kept:]
    return [_trace(rows, ids[start:], k) for rows, ids in zip(logits, texts, strict=True)]


def pass_prompts(model: PreTrainedModel, prompts: Sequence[Ids]) -> list[PassedPrompt | None]:
    """Pass each prompt by itself; None stands for one that no continuation can go on from."""
    return [_pass_prompt(model, prompt) for prompt in prompts]


class PassedPrompt:
    """What is kept of a prompt: its keys and values, and the logits behind it, [1, V]."""

    def __init__(self, cache: DynamicCache, logits: torch.Tensor) -> None:
        self._cache, self._logits = cache, logits

    def score(self, model: PreTrainedModel, texts: Sequence[Ids], k: int) -> list[TokenTrace]:
        """Return the traces of continuations, from one pass padded on the right."""
        read = [text[:-1] for text in texts]  # nothing is scored behind the last token
        if not any(read):
            return [_trace(self._logits, text, k) for text in texts]
        width = max(map(len, read))
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in read])
        # No mask: padding on the right comes after all that attends.
        cache = self._for_rows(len(texts))
        logits = forward(model, ids, use_cache=True, past_key_values=cache).logits
        return [
            _trace(torch.cat([self._logits, rows]), text, k)
            for rows, text in zip(logits, texts, strict=True)
        ]

    def _for_rows(self, count: int) -> DynamicCache:
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in cache.layers:
            layer.keys = layer.keys.expand(count, -1, -1, -1)
            layer.values = layer.values.expand(count, -1, -1, -1)
        return cache


def scored_candidate(
    prompt: Ids, ids: Ids, text: str, trace: TokenTrace
) -> Candidate | EngineError:
    """Return given tokens as a candidate, or why they have no scores."""
    if np.isnan(trace.logprob).any():
        return EngineError("the model's logits are not numbers; a wider dtype may help")
    return Candidate(prompt, ids, text, trace)


def _pass_prompt(model: PreTrainedModel, prompt: Ids) -> PassedPrompt | None:
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return None
    cache = DynamicCache(config=model.config)
    if not all(type(layer) in _SHAREABLE for layer in cache.layers):
        return None
    ids = torch.tensor([prompt])
    output = forward(model, ids, use_cache=True, past_key_values=cache, **last_logits(model, 1))
    if cache.get_seq_length() != len(prompt):  # the model keeps things in its own way
        return None
    return PassedPrompt(cache, output.logits[0, -1:])


def _trace(rows: torch.Tensor, ids: Ids, k: int) -> TokenTrace:
    return trace_of(rows[: len(ids)], torch.tensor(ids, device=rows.device).long(), k)
