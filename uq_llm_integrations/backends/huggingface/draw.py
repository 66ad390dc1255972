"""Drawing the next tokens from logits, in the order of vLLM's sampler."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from uq_llm_integrations.backends.huggingface.sampling import HFSampling


def draw(
    logits: torch.Tensor, sampling: HFSampling, generators: Sequence[torch.Generator | None]
) -> torch.Tensor:
    """Return one token for each row of float32 logits [rows, V]; penalties are already in them.

    A row with a generator draws the same token whatever the other rows are.
    """
    if sampling.is_greedy:
        return logits.argmax(-1)
    probabilities = filtered(logits / sampling.temperature, sampling).softmax(-1)
    # The smallest of exponential variables with these rates belongs to a token with just its
    # probability; unlike torch.multinomial this lets each row have a generator of its own.
    waits = torch.empty_like(probabilities).exponential_()
    for row, generator in enumerate(generators):
        if generator is not None:
            waits[row].exponential_(generator=generator)
    return (probabilities / waits).argmax(-1)


def filtered(logits: torch.Tensor, sampling: HFSampling) -> torch.Tensor:
    """Return logits [rows, V] with -inf in place of what min_p, top_k and top_p leave out."""
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = logits.sort(-1, descending=True)
        probabilities = ordered.softmax(-1)
        more_probable = probabilities.cumsum(-1) - probabilities
        left_out = more_probable >= sampling.top_p
        left_out[:, 0] = False
        logits = logits.masked_fill(left_out.scatter(-1, places, left_out), -torch.inf)
    return logits


def penalised(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return logits [rows, V] with vLLM's repetition penalty on the tokens marked in `seen`."""
    weaker = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, weaker, logits)
