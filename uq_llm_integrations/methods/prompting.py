"""Methods that ask the model about its answer, or read what the answer says of itself."""

import re
from collections.abc import Sequence

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import Method, Value, evidence_method, values_of
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.entailment import reply_logprobs
from uq_llm_integrations.methods.hedging import NO_STATEMENT, hedged_confidence
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.polygraph import statistic
from uq_llm_integrations.methods.sampling import samples
from uq_llm_integrations.methods.verbal_confidence import replied_confidence, stated_confidence
from uq_llm_integrations.methods.words import words
from uq_llm_integrations.records import Candidate, Request

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
P_TRUE_EMPIRICAL = (
    "Question:\n\n{question}\n\nProposed Answer: {answer}\n\nIs the proposed answer:\n\tTrue or\n"
    "\tFalse?\nThe proposed answer is: "
)
HOW_CONFIDENT = (
    "Question: {question}\nProposed answer: {answer}\nHow likely is the proposed answer to be "
    "right? Reply with a number from 0.0 to 1.0 only.\nConfidence:"
)

KADAVATH = "https://arxiv.org/abs/2207.05221"
TIAN = "https://arxiv.org/abs/2305.14975"


async def true_logprobs(
    context: Context, template: str, texts: Sequence[str], ideas: str = ""
) -> list[float]:
    """Return the log-probability, in nats, that the model calls each text true."""
    question = await context.question()
    prompts = [template.format(question=question, answer=text, ideas=ideas) for text in texts]
    replies = await together(
        [reply_logprobs(context.backend, prompt, ["True"], chat=False) for prompt in prompts]
    )
    return [logprob for (logprob,) in replies]


@statistic("p_true")
async def true_answers(context: Context) -> list[float]:
    """Return the log-probability of True for each candidate."""
    return await true_logprobs(context, P_TRUE, [one.text for one in context.candidates])


@statistic("p_true_sampling")
async def true_among_samples(context: Context) -> list[float]:
    """Return the same where the prompt shows the samples, too."""
    ideas = ", ".join(one.text for one in await context.of(samples))
    texts = [one.text for one in context.candidates]
    return await true_logprobs(context, P_TRUE_SAMPLING, texts, ideas)


async def _replies(
    context: Context, template: str, *, chat: bool, tokens: int, n: int
) -> list[list[Candidate]]:
    """Return the model's replies to a prompt about each candidate."""
    question = await context.question()
    sampling: dict[str, object] = {"max_tokens": tokens, "temperature": 1.0 if n > 1 else 0.0}
    if context.request.sampling.get("seed") is not None:
        sampling["seed"] = context.request.sampling["seed"]

    async def replies_about(answer: str) -> list[Candidate]:
        prompt = template.format(question=question, answer=answer)
        ids = await context.backend.encode(prompt, chat=chat)
        return await context.backend.generate(Request(ids, n, sampling=sampling))

    return await together([replies_about(one.text) for one in context.candidates])


@evidence_method(
    "PTrue",
    alias="p_true",
    summary="Negative log-probability that the model calls its answer true; nats.",
    range=(0, np.inf),
    cost="one pass of another prompt",
    reference=KADAVATH,
    category="prompting",
)
async def p_true(context: Context) -> list[float]:
    return [-logprob for logprob in await context.of(true_answers)]


@evidence_method(
    "PTrueSampling",
    alias="p_true_sampling",
    summary="The same where the model is shown the samples, too; nats.",
    range=(0, np.inf),
    cost="samples, one pass of another prompt",
    reference=KADAVATH,
    category="prompting",
)
async def p_true_sampling(context: Context) -> list[float]:
    return [-logprob for logprob in await context.of(true_among_samples)]


@evidence_method(
    "PTrueEmpirical",
    alias="p_true_empirical",
    summary="Share of ten replies that do not call the answer true; 0 to 1.",
    range=(0, 1),
    cost="ten replies of one token",
    reference=KADAVATH,
    category="prompting",
)
async def p_true_empirical(context: Context) -> list[float]:
    replies = await _replies(context, P_TRUE_EMPIRICAL, chat=False, tokens=1, n=10)
    given = [[one.text for one in row if not one.error] for row in replies]
    return [1.0 - float(np.mean([_is_true(text) for text in texts])) for texts in given]


def _is_true(text: str) -> bool:
    return words(text)[:1] == ["true"]


@evidence_method(
    "Verbalized1S",
    alias="verbalized_1s",
    summary="1 less the confidence that the answer itself states; 0 to 1.",
    reference=TIAN,
    category="prompting",
    range=(0, 1),
)
async def verbalized_1s(context: Context) -> list[Value]:
    return values_of(_doubt_stated, [(one.text, context.options) for one in context.candidates])


@evidence_method(
    "Verbalized2S",
    alias="verbalized_2s",
    summary="1 less the confidence that the model states in reply to a question for it; 0 to 1.",
    cost="one more answer",
    reference=TIAN,
    category="prompting",
    range=(0, 1),
)
async def verbalized_2s(context: Context) -> list[Value]:
    replies = await _replies(context, HOW_CONFIDENT, chat=True, tokens=10, n=1)
    return values_of(_doubt_replied, [(reply, context.options) for (reply,) in replies])


@evidence_method(
    "Linguistic1S",
    alias="linguistic",
    summary="1 less the confidence that the answer's words stand for; 0 to 1.",
    reference=TIAN,
    category="prompting",
    range=(0, 1),
)
async def linguistic(context: Context) -> list[Value]:
    return values_of(_doubt_hedged, [(one.text, context.options) for one in context.candidates])


def _doubt_stated(text: str, options: MethodOptions) -> float:
    if options.stated_confidence is None:
        return 1.0 - stated_confidence(text, options.hedges)
    if (found := re.search(options.stated_confidence, text)) is None or not found[1]:
        raise EvidenceError(NO_STATEMENT)
    return 1.0 - replied_confidence(found[1], options.hedges)


def _doubt_replied(reply: Candidate, options: MethodOptions) -> float:
    if reply.error:
        raise reply.error
    is_cut = reply.finish_reason == "length"
    return 1.0 - replied_confidence(reply.text, options.hedges, is_cut=is_cut)


def _doubt_hedged(text: str, options: MethodOptions) -> float:
    return 1.0 - hedged_confidence(text, options.hedges)


METHODS: tuple[Method, ...] = (
    p_true,
    p_true_sampling,
    p_true_empirical,
    verbalized_1s,
    verbalized_2s,
    linguistic,
)
