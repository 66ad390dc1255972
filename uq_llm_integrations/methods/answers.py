"""What is known of an answer itself, under lm-polygraph's names."""

from __future__ import annotations

from typing import Any

from uq_llm_integrations.methods.context import EvidenceError, Gathering, provides
from uq_llm_integrations.methods.wishes import Asking


@provides("greedy_tokens", "greedy_texts", "greedy_log_likelihoods")
def answers(gathering: Gathering) -> Asking[list[Any]]:
    """Return token ids, text and [T] log-probabilities of each candidate, greedy or not."""
    yield from ()
    return [
        {
            "greedy_tokens": list(one.token_ids),
            "greedy_texts": one.text,
            "greedy_log_likelihoods": one.trace.logprob,
        }
        for one in gathering.candidates
    ]


@provides("input_texts")
def input_texts(gathering: Gathering) -> Asking[list[Any]]:
    """Return the prompt's text."""
    return gathering.for_each((yield from gathering.question()))


@provides("entropy")
def entropies(gathering: Gathering) -> Asking[list[Any]]:
    """Return [T] entropies of each candidate's distributions."""
    yield from ()
    unseen = next((one.trace for one in gathering.candidates if one.trace.entropy is None), None)
    if unseen is not None:
        raise EvidenceError(str(unseen.why_inexact))
    return [one.trace.entropy for one in gathering.candidates]


@provides("greedy_log_probs")
def distributions(gathering: Gathering) -> Asking[list[Any]]:
    """Return [T, V] log-probabilities of each candidate, where they were all asked for."""
    yield from ()
    traces = [one.trace for one in gathering.candidates]
    for trace in traces:
        if trace.top_logprobs is None or trace.top_logprobs.shape[1] < trace.vocabulary_size:
            raise EvidenceError("the whole vocabulary was not asked for: top_logprobs=-1")
    return [trace.top_logprobs for trace in traces]
