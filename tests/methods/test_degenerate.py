"""Degenerate inputs have reasons of their own, and no method's failure costs the answer."""

import asyncio

import numpy as np
import pytest

from tests.methods.helpers import Lookup, scored
from uq_llm_integrations import (
    METHODS,
    MethodOptions,
    ScriptedBackend,
    UncertaintyModel,
    evidence_method,
    missing_requirements,
    register_method,
    score,
    token_max,
    trace_method,
)

GRAPHS = ["eccentricity", "eigval_laplacian"]


class Judge:
    """Says the same of every pair."""

    name = "a test"

    def __init__(self, shares=(1, 0, 0), alike: float = 1.0) -> None:
        self.shares, self.alike = shares, alike

    async def entailments(self, pairs, question, backend):
        return np.array([self.shares] * len(pairs), np.float64)

    async def similarities(self, pairs, question, backend):
        return np.full(len(pairs), self.alike)


async def reason_of(name: str, judge, lines=("Paris", "Rome", "Oslo")) -> str:
    result = await scored(list(lines), name, n=3, entailment=judge, similarity=judge)
    found = result.score(name)
    assert not found.is_known
    return found.reason


@pytest.mark.parametrize("name", ["token_sar", "sar", "claim_token_sar"])
async def test_where_no_token_weighs_anything(name):
    assert "all similarities are 1" in await reason_of(name, Judge(alike=1.0))


@pytest.mark.parametrize("name", GRAPHS)
async def test_where_no_sample_entails_any(name):
    assert "a sample entails none, not even itself" in await reason_of(name, Judge((0, 0.5, 0.5)))


async def test_where_samples_neither_entail_nor_contradict():
    assert "neither entail nor contradict" in await reason_of("luq", Judge((0, 1, 0)))


@pytest.mark.parametrize("judge", [Judge((np.nan,) * 3, np.nan), Judge((-1, 1, 1), 7)])
@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.judged_by and "CCP" not in name]
)
async def test_a_judge_that_gives_no_probability_is_named(name, judge):
    result = await scored(["Paris", "Rome"], name, n=2, entailment=judge, similarity=judge)
    assert not result.score(name).is_known
    if "top log-probabilities" not in result.score(name).reason:  # a script has none
        assert f"the judge of {METHODS[name].judged_by} gave" in result.score(name).reason


async def test_a_judge_that_says_nothing_is_named():
    assert "no probability at all" in await reason_of("consistency", Judge((0, 0, 0)))


async def test_a_judge_of_too_few_pairs_is_named():
    class Short(Lookup):
        async def similarities(self, pairs, question, backend):
            return np.ones(1)

    assert "instead of" in await reason_of("cocoa_msp", Short())


@pytest.mark.parametrize("lines", [["", "", ""], ["Paris", "", ""], ["?"], ["a", "a", "a"]])
@pytest.mark.parametrize(
    "judge", [Judge(), Judge((0, 0, 0), 0), Judge((0, 1, 0), 0), Judge((np.nan,) * 3, np.nan)]
)
def test_no_degenerate_input_costs_the_answer(lines, judge):
    backend = ScriptedBackend(lines)
    options = MethodOptions(entailment=judge, similarity=judge)
    served = missing_requirements(None, backend, options)
    names = [name for name, lacks in served.items() if lacks is None]
    model = UncertaintyModel(backend, n=3, methods=names, method_options=options)
    result = model.generate("?")
    assert result.text == lines[0]
    assert all(one.is_known or one.reason for row in result.scores for one in row.values())


class Nameless(Judge):
    name = property(lambda self: 1 / 0)


FAILURES = [
    ValueError(), np.linalg.LinAlgError("Singular matrix"), TimeoutError(),
    asyncio.CancelledError(), StopIteration(), RecursionError(), MemoryError(), SystemError(),
]  # fmt: skip  # a list of errors


@pytest.mark.parametrize("error", FAILURES, ids=lambda one: type(one).__name__)
def test_a_method_that_raises_anything_costs_no_other_score(error, own_registry):
    @register_method
    @evidence_method("raising", summary="Nothing.", reference="none")
    async def raising(context):
        raise error

    @register_method
    @trace_method("raising_too", summary="Nothing.", reference="none")
    def raising_too(trace):
        raise error if isinstance(error, Exception) else ValueError()

    methods = ["raising", "raising_too", "perplexity", "mc_entropy"]
    result = UncertaintyModel(ScriptedBackend(["Paris", "Rome"]), n=2, methods=methods).generate(
        "?"
    )
    assert result.text == "Paris"
    assert result.score("perplexity").is_known and result.score("mc_entropy").is_known
    for name in ("raising", "raising_too"):
        assert result.score(name).reason.startswith(f"{name} failed: ")


@pytest.mark.parametrize("value", ["much", None, [[1]], [1, 2], object()])
def test_a_value_that_is_no_number_is_a_reason(value, own_registry):
    @register_method
    @evidence_method("odd", summary="Nothing.", reference="none")
    async def odd(context):
        return [value, 0.5]

    model = UncertaintyModel(ScriptedBackend(["Paris", "Rome"]), n=2, methods=["odd"])
    result = model.generate("?")
    assert result.score("odd").reason.startswith("odd failed: ")
    assert result.scores[1]["odd"].value == 0.5


def test_an_inspection_that_fails_costs_no_other_score(own_registry):
    @register_method
    @evidence_method(
        "curious", summary="Nothing.", reference="none", inspection=lambda options: 1 / 0
    )
    async def curious(context):
        return [0.5]

    model = UncertaintyModel(ScriptedBackend(["Paris"]), methods=["curious", "rauq"])
    assert model.generate("?").score("rauq").is_known


def test_a_judge_whose_name_fails_costs_no_answer():
    options = MethodOptions(similarity=Nameless())
    model = UncertaintyModel(
        ScriptedBackend(["Paris", "Rome"]), n=2, methods=["cocoa_msp"], method_options=options
    )
    assert model.generate("?").score("cocoa_msp").source == "Nameless"


def test_a_transform_that_fails_costs_no_answer(own_registry):
    @register_method
    @trace_method("risky", summary="x", reference="none", transform=lambda value: 1 / 0)
    def risky(trace):
        return trace.logprob

    for condition in (score("risky") > 1, token_max("risky") > 1):
        model = UncertaintyModel(ScriptedBackend(["Paris"]), uncertain_when=condition)
        assert model.generate("?").decision.is_uncertain


async def test_a_cancelled_call_is_cancelled(own_registry):
    @register_method
    @evidence_method("slow", summary="Nothing.", reference="none")
    async def slow(context):
        await asyncio.sleep(60)
        return [1.0]

    task = asyncio.ensure_future(scored(["Paris"], "slow"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
