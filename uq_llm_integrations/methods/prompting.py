"""What the model says when it is asked about its answer, or about the answer alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from uq_llm_integrations.methods.context import Gathering, provides
from uq_llm_integrations.methods.entailment import option_logprobs
from uq_llm_integrations.methods.wishes import Asking, Encode, Generate, Rescore, Together
from uq_llm_integrations.records import Candidate, Floats, Request

# lm-polygraph's words, so that scores can be compared.
P_TRUE = (
    "Question: {question}\n Possible answer:{answer}\n Is the possible answer:\n (A) True\n"
    " (B) False\n The possible answer is:"
)
P_TRUE_SAMPLING = (
    "Question: {question}\n Here are some ideas that were brainstormed: {ideas}\n"
    " Possible answer:{answer}\n Is the possible answer:\n (A) True\n (B) False\n"
    " The possible answer is:"
)
P_TRUE_CLAIM = (
    "Question: {question}\n Possible answer:{answer}\n "
    "Is the possible answer True or False? The possible answer is: "
)
P_TRUE_EMPIRICAL = (
    "Question:\n\n{question}\n\nProposed Answer: {answer}\n\nIs the proposed answer:\n\tTrue or\n"
    "\tFalse?\nThe proposed answer is: "
)
HOW_CONFIDENT = (
    "Question: {question}\nProposed answer: {answer}\nHow likely is the proposed answer to be "
    "right? Reply with a number from 0.0 to 1.0 only.\nConfidence:"
)


@provides("p_true")
def p_true(gathering: Gathering) -> Asking[list[Any]]:
    """Return the log-probability of True for each candidate (https://arxiv.org/abs/2207.05221)."""
    return (yield from _true(gathering, P_TRUE, ""))


@provides("p_true_sampling")
def p_true_sampling(gathering: Gathering) -> Asking[list[Any]]:
    """Return the same where the prompt shows the samples, too."""
    ideas = ", ".join((yield from gathering.one("sample_texts")))
    return (yield from _true(gathering, P_TRUE_SAMPLING, ideas))


def _true(gathering: Gathering, template: str, ideas: str) -> Asking[list[Any]]:
    texts = [one.text for one in gathering.candidates]
    return (yield from called_true(gathering, template, texts, ideas))


def called_true(
    gathering: Gathering, template: str, texts: Sequence[str], ideas: str = ""
) -> Asking[list[float]]:
    """Return the log-probability that the model calls each text true."""
    question = yield from gathering.question()
    asked = tuple(
        option_logprobs(
            template.format(question=question, answer=text, ideas=ideas), ["True"], chat=False
        )
        for text in texts
    )
    return [logprobs[0] for logprobs in (yield Together(asked))]


@provides("p_true_empirical")
def p_true_empirical(gathering: Gathering) -> Asking[list[Any]]:
    """Return the share of drawn replies that hold True, for each candidate."""
    replies = yield from _replies(gathering, P_TRUE_EMPIRICAL, chat=False, tokens=1, n=10)
    given = [[one.text for one in drawn if not one.error] for drawn in replies]
    return [float(np.mean(["True" in text for text in texts])) for texts in given]


@provides("stated_confidence_2s")
def confidence_asked_for(gathering: Gathering) -> Asking[list[Any]]:
    """Return what the model says when asked for its confidence, None where it gives no number."""
    replies = yield from _replies(gathering, HOW_CONFIDENT, chat=True, tokens=10, n=1)
    return [_number(r"([01]?\.\d+|[01])", drawn[0].text) for drawn in replies]


@provides("stated_confidence_1s")
def confidence_in_the_answer(gathering: Gathering) -> Asking[list[Any]]:
    """Return the confidence that each answer itself states, None where it states none."""
    yield from ()
    return [_number(gathering.method_options.confidence, one.text) for one in gathering.candidates]


@provides("hedge")
def hedge(gathering: Gathering) -> Asking[list[Any]]:
    """Return the confidence of the first expression that each answer holds, None where none."""
    yield from ()
    hedges = gathering.method_options.hedges.items()
    return [
        next((sure for words, sure in hedges if words in one.text.lower()), None)
        for one in gathering.candidates
    ]


@provides("greedy_lm_log_likelihoods")
def without_the_prompt(gathering: Gathering) -> Asking[list[Any]]:
    """Return [T] log-probabilities of each candidate's tokens without the prompt before them.

    The first token has nothing before it and none; the estimators do not read it.
    """
    asked = tuple(_alone(one) for one in gathering.candidates)
    rows: list[Floats] = yield Together(asked)
    return rows


def _alone(candidate: Candidate) -> Asking[Floats]:
    first, *rest = candidate.token_ids
    if not rest:
        return np.zeros(1)
    (scored,) = yield Rescore((first,), (tuple(rest),))
    if scored.error:
        raise scored.error
    return np.concatenate([np.zeros(1), scored.trace.logprob])


def _replies(
    gathering: Gathering, template: str, *, chat: bool, tokens: int, n: int
) -> Asking[list[list[Candidate]]]:
    question = yield from gathering.question()
    sampling: dict[str, Any] = {"max_tokens": tokens, "temperature": 1.0 if n > 1 else 0.0}
    if gathering.request.sampling.get("seed") is not None:
        sampling["seed"] = gathering.request.sampling["seed"]

    def reply(answer: str) -> Asking[list[Candidate]]:
        ids = yield Encode(template.format(question=question, answer=answer), chat)
        drawn: list[Candidate] = yield Generate(Request(ids, n, sampling=sampling))
        return drawn

    asked = tuple(reply(one.text) for one in gathering.candidates)
    replies: list[list[Candidate]] = yield Together(asked)
    return replies


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    number = float(found.group(1)) if found else None
    return number if number is not None and 0.0 <= number <= 1.0 else None
