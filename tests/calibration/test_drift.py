"""A watch over scores: few false alarms, and an alarm where the ground is gone."""

import logging

import numpy as np
import pytest

from tests.calibration.graded_answers import drawn
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    ConfigurationError,
    ScriptedBackend,
    UncertaintyModel,
)
from uq_llm_integrations.calibration import (
    Calibration,
    DriftState,
    DriftWatch,
    Origin,
    Watched,
    fit_calibration,
)


def fitted(seed: int = 0, count: int = 200, **options) -> Calibration:
    scores, right = drawn(seed, count)
    return fit_calibration({"entropy": scores}, right, origin=Origin("m", "1"), **options)


def watched(scores, alpha: float = 0.05, seed: int = 0, **options) -> DriftState:
    watch = DriftWatch(fitted(seed), alpha=alpha, seed=seed, **options)
    for score in scores:
        watch.add(score)
    return watch.state


def test_false_alarms_are_as_rare_as_stated():
    alarms = [watched(drawn(1000 + seed, 500)[0], seed=seed).alarmed_at for seed in range(100)]
    assert sum(one is not None for one in alarms) <= 10  # 5 are expected at most; P(> 10) = 0.01


def test_ties_and_unknown_scores_raise_no_false_alarm():
    tied = fit_calibration(
        {"entropy": [0.0, 0.0, 1.0, None] * 50}, [True, False] * 100, origin=Origin("m", "1")
    )
    rng = np.random.default_rng(0)
    watch = DriftWatch(tied)
    for _ in range(3000):
        watch.add([0.0, 0.0, 1.0, None][rng.integers(4)])
    assert watch.state.alarmed_at is None and watch.state.unknown > 500


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_scores_that_have_moved_are_noticed_soon(shift):
    state = watched(drawn(1, 1000)[0] + shift)
    assert state.alarmed_at is not None and state.alarmed_at < 200


def test_scores_that_become_unknown_are_noticed():
    assert watched([None] * 200).alarmed_at < 100


def test_a_change_after_a_long_time_is_noticed():
    before, after = drawn(2, 2000)[0], drawn(3, 2000)[0] + 1.5
    assert 2000 < watched([*before, *after]).alarmed_at < 2800


def test_the_alarm_is_heard_once(caplog):
    heard: list[DriftState] = []
    with caplog.at_level(logging.WARNING):
        state = watched([9.0] * 300, on_alarm=heard.append)
    assert [one.alarmed_at for one in heard] == [state.alarmed_at]
    assert heard[0].evidence >= 20 and caplog.text.count("no longer come from") == 1


def test_its_memory_is_bounded_and_the_test_goes_on():
    state = watched([*drawn(4, 3000)[0], *[9.0] * 300], most=500)
    assert state.answers == 3300 and state.alarmed_at > 3000


def test_only_the_last_answers_are_kept_and_no_text():
    watch = DriftWatch(fitted(), keep=2)
    for score in (1.0, None, 2.0):
        watch.add(score, is_uncertain=score is None)
    assert list(watch.recent) == [
        Watched(None, "accepted", True),
        Watched(2.0, "accepted", False),
    ]
    assert (watch.state.answers, watch.state.unknown, watch.state.uncertain) == (3, 1, 1)


def test_answers_of_a_model_are_watched_and_graded():
    model = UncertaintyModel(ScriptedBackend(["Paris", "Rome"]), methods=["entropy"])
    watch = DriftWatch(fitted(risk=0.3))
    for correct in (True, False) * 30:
        result = model.generate("?")
        watch.show(result)
        watch.feedback(result, correct)
    assert watch.recent[0].score == result.score("entropy").value
    again = watch.recalibrated()
    assert len(again.graded.scores) == 60 and again.guarantee == watch.calibration.guarantee
    assert again.thresholds.value is None and "cannot be promised" in again.thresholds.reason


def test_answers_can_be_watched_by_their_metadata():
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]), uncertain_when="entropy > 0.1")
    metadata = chat.invoke("?").response_metadata["uncertainty"]
    watch = DriftWatch(fitted())
    watch.show(metadata)
    assert list(watch.recent) == [Watched(metadata["scores"]["entropy"], "accepted", True)]


def test_an_answer_without_the_scores_is_refused():
    result = UncertaintyModel(ScriptedBackend(["a"]), methods=["maxprob"]).generate("?")
    with pytest.raises(ConfigurationError, match="no scores of entropy"):
        DriftWatch(fitted()).show(result)


def test_without_feedback_there_is_nothing_to_calibrate_by():
    with pytest.raises(ConfigurationError, match="no graded answers"):
        DriftWatch(fitted()).recalibrated()
