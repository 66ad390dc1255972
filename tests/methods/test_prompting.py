"""Methods that ask the model about its answer, or read what the answer says of itself."""

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import NATS, add_scores, request, scored, values
from uq_llm_integrations import EngineError, ScriptedBackend, ScriptedLine


class Wordy(ScriptedBackend):
    """Has words for tokens, so that one of them is a whole line."""

    async def generate(self, request, monitor=None):
        return await super().generate(replace(request, sampling={}), monitor)


async def test_the_probability_of_true_is_read_in_one_pass():
    result = await scored(["Oslo"], "p_true")
    assert values(result, "p_true") == pytest.approx([4 * NATS])  # "True" is four bytes
    assert result.usage.generated_tokens == 0


async def test_stated_confidence_and_hedges_are_read():
    script = ["Oslo. Confidence: 0.4", "Probably Oslo", "Oslo"]
    result = await scored(script, "verbalized_1s", "linguistic", n=3)
    assert values(result, "verbalized_1s") == [pytest.approx(0.6), None, None]
    assert values(result, "linguistic") == [None, pytest.approx(0.3), None]
    assert "says nothing" in result.scores[2]["linguistic"].reason


async def test_the_caller_says_how_a_confidence_is_stated():
    result = await scored(["Oslo, p=0.3"], "verbalized_1s", stated_confidence=r"p=([\d.]+)")
    assert values(result, "verbalized_1s") == [pytest.approx(0.7)]


async def test_a_reply_that_failed_counts_neither_way():
    candidates = await ScriptedBackend(["Oslo"]).generate(request())
    replies = Wordy(["True", EngineError("broken"), *["False"] * 8])
    result = await add_scores(candidates, ["p_true_empirical"], replies)
    assert values(result, "p_true_empirical") == pytest.approx([8 / 9])


async def test_a_reply_calls_the_answer_true_by_its_first_word():
    candidates = await ScriptedBackend(["Oslo"]).generate(request())
    replies = Wordy(
        ["True", " true.", "TRUE!", "Not True", "Untrue", "Truely", "False", "", "?", "Falsch True"]
    )
    result = await add_scores(candidates, ["p_true_empirical"], replies)
    assert values(result, "p_true_empirical") == pytest.approx([0.7])


async def test_without_the_prompt_the_model_is_as_sure_so_it_takes_nothing():
    """But for the first token, which has nothing before it and is taken as it is."""
    result = await scored([ScriptedLine("abcd", 0.9)], "mean_pmi", "pmi")
    assert values(result, "mean_pmi") == pytest.approx([-np.log(0.9) / 4])
    assert result.score("pmi").tokens == pytest.approx([-np.log(0.9), 0, 0, 0])
