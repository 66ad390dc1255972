"""Log-probabilities in the shape of OpenAI's API, as both frameworks' users know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uq_llm_integrations.records import TokenTrace

LEAST = -9999.0
"""What stands for minus infinity, which JSON has not, as in OpenAI's API."""


def openai_logprobs(
    trace: TokenTrace, texts: Sequence[str], top_texts: Mapping[int, str], k: int
) -> list[dict[str, Any]]:
    """Return an entry for each token, with its k alternatives, the most probable first."""
    return [
        _entry(text, float(logprob)) | {"top_logprobs": _top(trace, i, top_texts, k)}
        for i, (text, logprob) in enumerate(zip(texts, trace.logprob, strict=True))
    ]


def _top(trace: TokenTrace, i: int, texts: Mapping[int, str], k: int) -> list[dict[str, Any]]:
    if trace.top_ids is None or trace.top_logprobs is None:
        return []
    ids, logprobs = trace.top_ids[i], trace.top_logprobs[i]
    best = np.argsort(-logprobs, kind="stable")[:k]
    return [_entry(texts[int(ids[one])], float(logprobs[one])) for one in best]


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "bytes": list(text.encode()), "logprob": max(logprob, LEAST)}
