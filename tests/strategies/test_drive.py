"""The drivers, on a backend that answers from a script."""

import asyncio

import pytest

from uq_llm_integrations.backends.scripted import ScriptedBackend
from uq_llm_integrations.errors import EngineError, UnknownMethodError
from uq_llm_integrations.records import Request
from uq_llm_integrations.strategies.best_of_n import Single
from uq_llm_integrations.strategies.drive import adrive, adrive_all, drive, drive_all


def request(prompt: str, n: int = 1) -> Request:
    return Request(tuple(prompt.encode()), n)


def test_every_candidate_is_scored():
    backend = ScriptedBackend(["one", "two"])
    result = drive(Single(), request("?", n=2), backend, ["perplexity", "entropy"])
    assert [candidate.text for candidate in result.candidates] == ["one", "two"]
    assert [set(scores) for scores in result.scores] == [{"perplexity", "entropy"}] * 2
    assert result.scores[0]["perplexity"].value == pytest.approx(0.1053605)
    assert (result.usage.prompt_tokens, result.usage.generated_tokens) == (1, 6)


def test_sync_and_async_give_the_same():
    def texts_and_scores(result):
        return [one.text for one in result.candidates], result.scores

    sync = drive(Single(), request("?"), ScriptedBackend(["yes"]))
    other = asyncio.run(adrive(Single(), request("?"), ScriptedBackend(["yes"])))
    assert texts_and_scores(sync) == texts_and_scores(other)


async def test_a_failure_neither_shifts_nor_loses_the_others():
    backend = ScriptedBackend({"a": ["A"], "b": [EngineError("broken")], "c": ["C"]})
    with pytest.raises(EngineError, match="broken") as caught:
        await adrive_all(Single(), [request(prompt) for prompt in "abc"], backend)
    completed = caught.value.completed
    assert {place: result.candidate.text for place, result in completed.items()} == {0: "A", 2: "C"}


def test_results_come_in_the_order_of_the_requests():
    backend = ScriptedBackend({prompt: [prompt.upper()] for prompt in "abcd"})
    results = drive_all(Single(), [request(prompt) for prompt in "dbca"], backend)
    assert "".join(result.candidate.text for result in results) == "DBCA"


def test_an_unknown_method_is_refused():
    with pytest.raises(UnknownMethodError):
        drive(Single(), request("?"), ScriptedBackend(["yes"]), ["nonsense"])


def test_a_failed_candidate_is_kept_in_its_place_with_its_error():
    backend = ScriptedBackend(["one", EngineError("broken"), "three"])
    result = drive(Single(), request("?", n=3), backend)
    assert [one.text for one in result.candidates] == ["one", "", "three"]
    assert str(result.candidates[1].error) == "broken"
    assert result.scores[1]["perplexity"].value is None
