"""Methods that look at the tokens that might have stood in the place of each.

BoostedProb shares the probability among the tokens that dominate; CCP, claim-conditioned
probability, compares those that mean the same with those that mean the opposite.
"""

import string
from collections.abc import Sequence
from itertools import islice

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.row_checks import check_scored
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import Method, evidence_method
from uq_llm_integrations.methods.context import Context, refuse_grammar
from uq_llm_integrations.methods.polygraph import polygraph_method, statistic
from uq_llm_integrations.methods.sampling import LABELS, judged_entailments
from uq_llm_integrations.records import Candidate, Floats, TokenTrace

ALTERNATIVES = 10
"""Tokens that are compared at each index, the answer's own included; lm-polygraph's number."""

DOMINANT = 20, 256
"""Top log-probabilities that show at most indices which tokens dominate, and at any index."""

SMALLEST_JUMP, RELATIVE_JUMP = 0.005, 0.3

CCP = "https://arxiv.org/abs/2403.04696"
BOOSTED = "https://aclanthology.org/2025.emnlp-main.166"

TokenAlternatives = Sequence[Sequence[tuple[int, float]]]
"""For each token, itself and others with their log-probabilities, itself first."""

TokenLabels = Sequence[Sequence[Sequence[str | None]]]
"""For each token, what each alternative (in rows) is to each, one of `LABELS`."""


async def top_traces(
    context: Context, candidates: Sequence[Candidate], count: int
) -> list[TokenTrace]:
    """Return each candidate's trace with so many top log-probabilities, from a pass if need be.

    Under a grammar no pass can give them; they must have been requested with the answer.
    """
    return await together([_top_trace(context, one, count) for one in candidates])


async def _top_trace(context: Context, candidate: Candidate, count: int) -> TokenTrace:
    if _known(candidate.trace) >= min(count, _possible(candidate.trace)):
        return candidate.trace
    refuse_grammar(candidate, f"{count} top log-probabilities (request top_logprobs={count})")
    (scored,) = await context.backend.score_all(candidate.prompt_ids, (candidate.token_ids,), count)
    check_scored([scored])
    if _known(scored.trace) < min(count, scored.trace.vocabulary_size):
        raise EvidenceError(f"{count} top log-probabilities of each token cannot be had")
    return scored.trace


def _possible(trace: TokenTrace) -> int:
    """Return the most tokens that any index can have; a grammar may leave a few."""
    if trace.support is None or not len(trace):
        return trace.vocabulary_size
    return int(trace.support.max())


def _known(trace: TokenTrace) -> int:
    return 0 if trace.top_logprobs is None else trace.top_logprobs.shape[1]


@statistic("greedy_tokens_alternatives")
async def alternatives(context: Context) -> list[TokenAlternatives]:
    """Return for each candidate, for each token: itself and the most probable others, by id."""
    traces = await top_traces(context, context.candidates, ALTERNATIVES)
    return [_alternatives(*pair) for pair in zip(context.candidates, traces, strict=True)]


def _alternatives(candidate: Candidate, trace: TokenTrace) -> TokenAlternatives:
    assert trace.top_ids is not None and trace.top_logprobs is not None
    rows = []
    for index, token in enumerate(candidate.token_ids):
        ids, logprobs = trace.top_ids[index], trace.top_logprobs[index]
        order = np.argsort(-logprobs, kind="stable")[:ALTERNATIVES]
        possible = [i for i in order if ids[i] != token and np.isfinite(logprobs[i])]
        others = [(int(ids[i]), float(logprobs[i])) for i in possible]
        rows.append([(token, float(trace.logprob[index])), *others[: ALTERNATIVES - 1]])
    return rows


@statistic("greedy_tokens_alternatives_nli")
async def alternative_labels(context: Context) -> list[TokenLabels]:
    """Return for each candidate, for each token: what it entails of its alternatives, and back.

    Tokens are compared as words, without the punctuation around them.
    """
    given = await context.of(alternatives)
    tokens = sorted({token for rows in given for row in rows for token, _ in row})
    texts = await together([context.backend.decode((token,)) for token in tokens])
    words = {
        token: text.strip(string.punctuation + " \n")
        for token, text in zip(tokens, texts, strict=True)
    }
    rows = [[words[token] for token, _ in row] for one in given for row in one]
    matrices = iter(await _label_matrices(context, rows))
    return [list(islice(matrices, len(one))) for one in given]


async def _label_matrices(context: Context, rows: Sequence[Sequence[str]]) -> TokenLabels:
    """Return [N, N] labels for each row of N words, of the first and each only."""
    pairs = [(row[0], word) for row in rows for word in row]
    shares = await judged_entailments(context, [*pairs, *((b, a) for a, b in pairs)])
    labels = [LABELS[best] for best in shares.argmax(-1)]
    forward, backward = iter(labels[: len(pairs)]), iter(labels[len(pairs) :])
    matrices = []
    for row in rows:
        matrix: list[list[str | None]] = [[None] * len(row) for _ in row]
        for i in range(len(row)):
            matrix[i][0] = next(backward)
            matrix[0][i] = next(forward)
        matrices.append(matrix)
    return matrices


@statistic("boosted_probabilities")
async def boosted(context: Context) -> list[Floats]:
    """Return [T] boosted probabilities of each candidate."""
    return await together([_boosted(context, one) for one in context.candidates])


async def _boosted(context: Context, candidate: Candidate) -> Floats:
    values = boosted_probabilities(candidate.trace, candidate.token_ids)
    for count in DOMINANT:
        if values is None:
            (trace,) = await top_traces(context, [candidate], count)
            values = boosted_probabilities(trace, candidate.token_ids)
    if values is None:
        raise EvidenceError(f"{DOMINANT[-1]} top log-probabilities do not show what dominates")
    return values


def boosted_probabilities(trace: TokenTrace, token_ids: Sequence[int]) -> Floats | None:
    """Return [T] BoostedProb, https://aclanthology.org/2025.emnlp-main.166; high is certain.

    The tokens above the last steep fall of the sorted probabilities, one of more than 0.005 and of
    30 percent, dominate; one of them has the probability of all of them, any other its own. Under
    a grammar, there are only the tokens that it allows. None where the trace has too few top
    log-probabilities to show where the last fall is.
    """
    if trace.top_logprobs is None or trace.top_ids is None:
        return None
    order = np.argsort(-trace.top_logprobs, axis=1, kind="stable")
    ids = np.take_along_axis(trace.top_ids, order, 1)
    probabilities = np.exp(np.take_along_axis(trace.top_logprobs, order, 1))
    is_whole = ids.shape[1] >= _possible(trace)
    if not is_whole and (probabilities[:, -1] > SMALLEST_JUMP).any():
        return None
    above, falls = probabilities[:, :-1], -np.diff(probabilities, axis=1)
    is_steep = (falls > RELATIVE_JUMP * above) & (falls > SMALLEST_JUMP)
    is_steep &= probabilities[:, 1:] > 0  # what a grammar forbids is no part of the distribution
    # The number of tokens above the last steep fall, 0 where there is none.
    count = (is_steep * np.arange(1, ids.shape[1])).max(1, initial=0)
    dominates = np.arange(ids.shape[1]) < count[:, np.newaxis]
    is_dominant = ((ids == np.asarray(token_ids)[:, np.newaxis]) & dominates).any(1)
    mass = (probabilities * dominates).sum(1)
    return np.where(is_dominant, mass, np.exp(trace.logprob))


def log_ccp(alternatives: TokenAlternatives, labels: TokenLabels) -> Floats:
    """Return [T] log of claim-conditioned probability, https://arxiv.org/abs/2403.04696.

    The share that the alternatives which mean the same have of those that mean the same or the
    opposite; in nats, 0 is certain.
    """
    return np.array([_log_ccp(*pair) for pair in zip(alternatives, labels, strict=True)])


def _log_ccp(row: Sequence[tuple[int, float]], labels: Sequence[Sequence[str | None]]) -> float:
    logprobs = np.array([logprob for _, logprob in row])
    both = [{labels[0][i], labels[i][0]} & {"entail", "contra"} for i in range(len(row))]
    same = np.array([i == 0 or one == {"entail"} for i, one in enumerate(both)])
    against = np.array([i > 0 and one == {"contra"} for i, one in enumerate(both)])
    total = np.logaddexp.reduce(logprobs[same | against])
    return float(np.logaddexp.reduce(logprobs[same]) - total)


LABELLED = (
    "one pass unless 10 top log-probabilities were requested, "
    "entailment of the alternatives of each token"
)


@evidence_method(
    "TokenClaimConditionedProbability",
    alias="token_ccp",
    level="token",
    summary="Negative log of the probability of what each token means, among alternatives that "
    "mean it or contradict it; nats.",
    range=(0, np.inf),
    reference=CCP,
    judged_by="entailment",
    cost=LABELLED,
)
async def token_ccp(context: Context) -> list[Floats]:
    given, labels = await context.of(alternatives), await context.of(alternative_labels)
    return [-log_ccp(*pair) for pair in zip(given, labels, strict=True)]


@evidence_method(
    "BoostedProbSequence",
    alias="boosted_prob",
    summary="Negated mean probability, where tokens that dominate share theirs; -1 to 0.",
    reference=BOOSTED,
    range=(-1, 0),
    cost="one pass unless enough top log-probabilities were requested",
)
async def boosted_prob(context: Context) -> list[float]:
    return [-float(row.mean()) for row in await context.of(boosted)]


METHODS: tuple[Method, ...] = (
    boosted_prob,
    polygraph_method(
        "ClaimConditionedProbability",
        "ClaimConditionedProbability",
        "greedy_tokens_alternatives greedy_tokens_alternatives_nli",
        alias="ccp",
        summary="Negated probability of what is meant, among alternatives that mean it or "
        "contradict it; -1 to 0.",
        range=(-1, 0),
        reference=CCP,
        judged_by="entailment",
        cost=LABELLED,
    ),
    token_ccp,
)
