"""Strategies run for one request or many, on a backend that answers from a script."""

import asyncio
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    BestOfN,
    Boundary,
    ConfigurationError,
    Conversation,
    EngineError,
    Request,
    Retry,
    RetryErrors,
    ScriptedBackend,
    SelfConsistency,
    Single,
    Stepwise,
    UnknownMethodError,
    agreement,
    run_strategy,
    score,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.strategies import STRATEGIES
from uq_llm_integrations.strategies.base import Run, Strategy, run_strategies


def request(prompt: str, n: int = 1) -> Request:
    return Request(tuple(prompt.encode()), n)


def run_many(requests, backend):
    return backend.run(run_strategies(Single(), requests, backend))


def test_every_candidate_is_scored():
    backend = ScriptedBackend(["one", "two"])
    result = run(Single(), request("?", n=2), backend, ["mean_nll", "entropy"])
    assert [candidate.text for candidate in result.candidates] == ["one", "two"]
    assert [set(scores) for scores in result.scores] == [{"mean_nll", "entropy"}] * 2
    assert result.scores[0]["mean_nll"].value == pytest.approx(0.1053605)
    assert (result.usage.prompt_tokens, result.usage.generated_tokens) == (1, 6)


def test_sync_and_async_give_the_same():
    def texts_and_scores(result):
        return [one.text for one in result.candidates], result.scores

    sync = run(Single(), request("?"), ScriptedBackend(["yes"]))
    other = asyncio.run(run_strategy(Single(), request("?"), ScriptedBackend(["yes"])))
    assert texts_and_scores(sync) == texts_and_scores(other)


async def test_a_failure_neither_shifts_nor_loses_the_others():
    backend = ScriptedBackend({"a": ["A"], "b": [EngineError("broken")], "c": ["C"]})
    with pytest.raises(EngineError, match="broken") as caught:
        await run_strategies(Single(), [request(prompt) for prompt in "abc"], backend)
    completed = caught.value.completed
    assert {index: result.candidate.text for index, result in completed.items()} == {0: "A", 2: "C"}


def test_results_come_in_the_order_of_the_requests():
    backend = ScriptedBackend({prompt: [prompt.upper()] for prompt in "abcd"})
    results = run_many([request(prompt) for prompt in "dbca"], backend)
    assert "".join(result.candidate.text for result in results) == "DBCA"


def test_an_unknown_method_is_refused():
    with pytest.raises(UnknownMethodError):
        run(Single(), request("?"), ScriptedBackend(["yes"]), ["nonsense"])


def test_a_failed_candidate_is_kept_at_its_index_with_its_error():
    backend = ScriptedBackend(["one", EngineError("broken"), "three"])
    result = run(Single(), request("?", n=3), backend)
    assert [one.text for one in result.candidates] == ["one", "", "three"]
    assert str(result.candidates[1].error) == "broken"
    assert result.scores[1]["perplexity"].value is None


def test_an_answer_that_came_to_its_end_is_accepted_and_complete():
    result = run(Single(), request("?"), ScriptedBackend(["yes"]))
    assert (result.decision.action, result.decision.is_uncertain) == ("accepted", False)
    assert (result.sampling_end.kind, result.sampling_end.reason) == ("complete", None)


async def test_another_backend_encodes_the_conversation_again():
    conversation = Conversation(({"role": "user", "content": "hi"},))
    backend = MeteredBackend(ScriptedBackend(["yes"]))
    start = Run(backend, Request((1,), conversation=conversation))
    moved = await start.on(ScriptedBackend(["no"]))
    assert moved.request.prompt_ids == tuple(b"hi")
    assert (await moved.sample()).text == "no"


async def test_another_backend_needs_the_prompts_text():
    start = Run(MeteredBackend(ScriptedBackend(["yes"])), Request((1,)))
    with pytest.raises(ConfigurationError, match="the prompt's text"):
        await start.on(ScriptedBackend(["no"]))


def test_every_strategy_has_its_name_in_files():
    named = {Abstain, BestOfN, Retry, RetryErrors, SelfConsistency, Single, Stepwise}
    assert named <= set(STRATEGIES.values())
    assert all(STRATEGIES[kind.type] is kind for kind in named)


def test_a_strategy_of_ones_own_enters_itself_by_its_type(monkeypatch):
    monkeypatch.delitem(STRATEGIES, "first_letter", raising=False)

    @dataclass(frozen=True)
    class FirstLetter(Strategy):
        type = "first_letter"

        async def __call__(self, run):
            return await run.sample()

    assert STRATEGIES.pop("first_letter") is FirstLetter


@pytest.mark.parametrize(
    ("plain", "strategy"),
    [
        ({}, Single()),
        ({"n": 4, "by": "borda", "wave": None}, BestOfN(4, "borda")),
        ({"n": 4, "settle": None}, SelfConsistency(4, settle=None)),
        (
            {
                "n": 2,
                "boundary": {"strings": ["\n"], "max_tokens": 9},
                "branch_when": "entropy > 1",
            },
            Stepwise(2, boundary=Boundary(("\n",), max_tokens=9), branch_when=score("entropy") > 1),
        ),
        (
            {"strategy": Single(), "when": "entropy > 1", "attempts": 2, "temperatures": [0.5]},
            Retry(Single(), score("entropy") > 1, attempts=2, temperatures=(0.5,)),
        ),
        ({"strategy": Single(), "attempts": 2}, RetryErrors(Single(), attempts=2)),
        (
            {"strategy": BestOfN(2), "when": "agreement < 0.5", "action": "raise"},
            Abstain(BestOfN(2), agreement() < 0.5, "raise"),
        ),
    ],
)
def test_pydantic_builds_every_strategy_from_plain_data(plain, strategy):
    adapter = TypeAdapter(type(strategy))
    assert adapter.validate_python(plain) == strategy
    with pytest.raises(ValidationError, match="nonsense"):
        adapter.validate_python(plain | {"nonsense": 1})


def test_a_strategy_is_read_by_its_type_with_those_that_it_wraps():
    plain = {
        "type": "abstain",
        "when": "agreement < 0.5",
        "strategy": {"type": "retry", "when": "entropy > 1", "strategy": {"type": "best_of_n"}},
    }
    expected = Abstain(Retry(BestOfN(), "entropy > 1"), "agreement < 0.5")
    assert TypeAdapter(Strategy).validate_python(plain) == expected


def test_what_wraps_no_named_strategy_wraps_a_single_one():
    plain = {"type": "retry", "when": "entropy > 1"}
    assert TypeAdapter(Strategy).validate_python(plain) == Retry(Single(), "entropy > 1")


@pytest.mark.parametrize(
    ("plain", "where", "message"),
    [
        ({"type": "best"}, (), "the type of a strategy is one of"),
        ({"n": 3}, (), "the type of a strategy is one of"),
        ({"type": "best_of_n", "N": 3}, ("best_of_n", "N"), "Unexpected"),
        ({"type": "retry", "when": "entropie > 1"}, ("retry", "when"), "did you mean 'entropy'"),
        ({"type": "retry_errors", "attempts": 0}, ("retry_errors",), "attempts is 0"),
        (
            {"type": "abstain", "when": "entropy > 1", "strategy": {"type": "single", "n": 2}},
            ("abstain", "strategy", "single", "n"),
            "Unexpected",
        ),
    ],
)
def test_what_is_wrong_in_plain_data_is_named_with_its_path(plain, where, message):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Strategy).validate_python(plain)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]


def test_the_json_schema_has_every_strategy_with_its_type_and_plain_fields():
    kinds = TypeAdapter(Strategy).json_schema()["$defs"]
    names = {one["properties"]["type"]["const"] for one in kinds.values() if one.get("required")}
    assert names == set(STRATEGIES)
    assert kinds["Retry"]["properties"].keys() == {
        "type",
        "strategy",
        "when",
        "attempts",
        "temperatures",
    }
