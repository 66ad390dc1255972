"""The entropy of the texts that a prompt leads to, held against the enumeration of all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import add_scores, request, scored
from uq_llm_integrations import Candidate, ScriptedBackend, TokenTrace
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.methods.bounds import bounded

Tree = Mapping[str, Mapping[str, float]]
"""Text so far -> the probabilities of what follows; what is not in it is an end."""

UNEVEN: Tree = {
    "": {"a": 0.5, "b": 0.3, "c": 0.2},
    "a": {"a": 0.9, "b": 0.1},
    "b": {"a": 0.4, "b": 0.35, "c": 0.25},
    "bb": {"a": 0.5, "b": 0.5},
}
EQUAL: Tree = {"": {"a": 0.75, "b": 0.25}, "a": {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}}
"""Four texts of a probability of 1/4 each, more open behind the likely token."""


def texts(tree: Tree, before: str = "", probability: float = 1.0) -> Iterator[tuple[str, float]]:
    """Yield all texts with their probabilities."""
    if before not in tree:
        yield before, probability
    for token, share in tree.get(before, {}).items():
        yield from texts(tree, before + token, probability * share)


def sample(tree: Tree, text: str) -> Candidate:
    """The sample of a text, with the exact statistics of the tree's distributions."""
    rows = [[tree[text[:t]].get(token, 0.0) for token in "abc"] for t in range(len(text))]
    with np.errstate(divide="ignore"):
        logprobs = np.log(rows)
    own = logprobs[np.arange(len(text)), ["abc".index(token) for token in text]]
    ids = tuple(map(ord, text))
    trace = TokenTrace(
        3, own, np.ones(len(text), np.int64), **exact_statistics(dense_rows(logprobs))
    )
    return Candidate((63,), ids, text, trace, "length")


async def estimates(tree: Tree, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What each text alone makes the estimate, and the probabilities of the texts."""
    found = []
    for text, _ in texts(tree):
        both = [sample(tree, text)] * 2
        result = await add_scores(both, [name], ScriptedBackend(["?"]), request(2))
        found.append(result.score(name).value)
    return np.array(found), np.array([share for _, share in texts(tree)])


@pytest.mark.parametrize("tree", [UNEVEN, EQUAL])
@pytest.mark.parametrize("name", ["rb_entropy", "mc_entropy"])
async def test_the_expectation_is_the_entropy_of_all_texts(tree, name):
    values, shares = await estimates(tree, name)
    assert shares @ values == pytest.approx(-shares @ np.log(shares), abs=1e-12)


async def test_exact_entropies_make_the_estimate_vary_less():
    spread = {}
    for name in ("rb_entropy", "mc_entropy"):
        values, shares = await estimates(UNEVEN, name)
        spread[name] = shares @ (values - shares @ values) ** 2
    assert spread["rb_entropy"] < spread["mc_entropy"] / 2


async def test_texts_of_equal_probability_are_where_it_varies_more():
    """So that less variance is usual, and no theorem."""
    plain, _ = await estimates(EQUAL, "mc_entropy")
    exact, _ = await estimates(EQUAL, "rb_entropy")
    assert plain == pytest.approx(np.full(4, np.log(4)))
    assert np.ptp(exact) == pytest.approx(np.log(3))


async def test_the_estimate_is_the_samples_mean():
    both = [sample(UNEVEN, "aa"), sample(UNEVEN, "c")]
    result = await add_scores(both, ["rb_entropy"], ScriptedBackend(["?"]), request(2))
    first = -sum(p * np.log(p) for p in (0.5, 0.3, 0.2))
    second = -sum(p * np.log(p) for p in (0.9, 0.1))
    assert result.score("rb_entropy").value == pytest.approx(first + second / 2)


async def test_one_answer_gets_samples_of_its_own():
    backend = ScriptedBackend(["Oslo"], probability=0.9)
    result = await scored(None, "rb_entropy", backend=backend, samples=3)
    entropy = -0.9 * np.log(0.9) - 0.1 * np.log(0.1 / 255)
    assert backend.requests[1].n == 3
    assert result.score("rb_entropy").value == pytest.approx(4 * entropy)


async def test_a_sample_that_is_known_within_bounds_only_is_a_reason():
    class Blurred(ScriptedBackend):
        async def generate(self, request, monitor=None):
            first, *others = await super().generate(request, monitor)
            trace = replace(first.trace, entropy=None, why_inexact="nobody looked")
            return [replace(first, trace=bounded(trace)), *others]

    result = await scored(["Oslo"], "rb_entropy", "mc_entropy", n=2, backend=Blurred)
    score = result.score("rb_entropy")
    assert score.value is None
    assert score.reason == "a sample has no exact entropies: nobody looked"
    assert result.score("mc_entropy").is_known
