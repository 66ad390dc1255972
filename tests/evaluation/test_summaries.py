"""What methods are worth and cost, and which of them to take."""

import numpy as np
import pytest

from tests.evaluation.graded_items import evaluation_of
from uq_llm_integrations import ConfigurationError, ScriptedBackend, UncertaintyModel, Usage
from uq_llm_integrations.calibration import auroc, prr
from uq_llm_integrations.evaluation import Question, calibration_of, evaluate, recommend, summaries

rng = np.random.default_rng(0)
RIGHT = [bool(one) for one in rng.random(300) < 0.6]
GOOD = [float(one) for one in np.where(RIGHT, 0, 1.5) + rng.normal(size=300)]
LIKE_GOOD = (np.array(GOOD) + 0.1 * rng.normal(size=300)).tolist()
CHANCE = [float(one) for one in rng.normal(size=300)]

FREE, DEAR = Usage(), Usage(prompt_tokens=10, generated_tokens=50, forward_passes=5, seconds=1.0)


def test_each_method_has_auroc_and_prr_with_intervals_and_its_cost():
    costs = {"good": DEAR, "chance": FREE}
    first, second = summaries(evaluation_of({"chance": CHANCE, "good": GOOD}, RIGHT, costs))
    assert (first.method, second.method) == ("good", "chance")
    assert first.auroc.value == auroc(GOOD, RIGHT).value
    assert first.prr.value == prr(GOOD, RIGHT).value
    assert first.auroc.interval.lower > 0.5 > second.auroc.interval.lower
    assert (first.cost.tokens, first.cost.passes, first.cost.seconds) == (60, 5, 1.0)
    assert second.cost.tokens == 0


def test_what_was_not_graded_is_left_out_and_what_has_no_score_is_counted():
    evaluation = evaluation_of({"good": [0.1, None, 0.2, 0.3]}, [True, False, None, False])
    (found,) = summaries(evaluation)
    assert found.auroc.count == 3 and found.unknown == 1 and found.cost is None


def test_the_cheapest_within_the_noise_of_the_best_is_recommended():
    costs = {"dear": DEAR, "cheap": FREE, "chance": FREE}
    scores = {"dear": GOOD, "cheap": LIKE_GOOD, "chance": CHANCE}
    found = recommend(evaluation_of(scores, RIGHT, costs))
    assert found.best in {"dear", "cheap"} and found.method == "cheap" and found.is_sure
    assert "costs nothing beside the answer" in found.words


def test_a_better_method_is_worth_its_price():
    costs = {"dear": DEAR, "chance": FREE}
    found = recommend(evaluation_of({"dear": GOOD, "chance": CHANCE}, RIGHT, costs), "prr")
    assert (found.method, found.best, found.is_sure) == ("dear", "dear", True)
    assert "none that is as good is cheaper" in found.words and "60 tokens" in found.words


def test_of_little_data_it_says_so():
    costs = {"dear": DEAR, "cheap": FREE}
    scores = {"dear": [0.1, 0.2, 0.9, 0.3], "cheap": [0.1, 0.8, 0.7, 0.3]}
    found = recommend(evaluation_of(scores, [True, True, False, True], costs))
    assert found.method == "cheap" and not found.is_sure
    assert (
        "3 answers are right and 1 wrong" in found.words and "There is no interval" in found.words
    )


def test_chance_is_called_chance():
    found = recommend(evaluation_of({"chance": CHANCE}, RIGHT))
    assert not found.is_sure and "no better than chance" in found.words


def test_where_all_are_right_nothing_can_be_recommended():
    found = recommend(evaluation_of({"good": [0.1, 0.2]}, [True, True]))
    assert found.method is None and "all 2 answers are right" in found.words
    with pytest.raises(ConfigurationError, match="metric is 'f1'"):
        recommend(evaluation_of({"good": [0.1]}, [True]), "f1")


def test_an_evaluation_makes_a_calibration_that_its_model_takes(tmp_path):
    script = {f"Question {i}?": ["yes" if i % 3 else "no, never"] for i in range(60)}
    questions = [Question(one, ("yes",), one) for one in script]
    with UncertaintyModel(ScriptedBackend(script), methods=["maxprob"]) as model:
        evaluation = evaluate(model, questions, tmp_path / "evaluation.jsonl")
        made = calibration_of(evaluation, ["maxprob"], risk=0.3)
        calibrated = model.with_options(calibration=made)
        assert calibrated.generate("Question 1?").confidence > 0.9
        assert calibrated.generate("Question 3?").confidence < 0.1


def test_a_calibration_may_be_of_a_stack_and_by_group():
    groups = ["law", "tax"] * 150
    evaluation = evaluation_of({"good": GOOD, "chance": CHANCE}, RIGHT, groups=groups)
    assert calibration_of(evaluation, ["good", "chance"]).methods == ("good", "chance")
    made = calibration_of(evaluation, ["good"], risk=0.3, by_group=True)
    assert {*made.thresholds.thresholds} == {"law", "tax"}


def test_a_calibration_takes_methods_that_were_evaluated_and_groups_that_are_there():
    evaluation = evaluation_of({"good": GOOD}, RIGHT)
    with pytest.raises(ConfigurationError, match="wanted is a list"):
        calibration_of(evaluation, "good")
    with pytest.raises(ConfigurationError, match="'bad' was not evaluated"):
        calibration_of(evaluation, ["bad"])
    with pytest.raises(ConfigurationError, match="300 of 300 graded questions have no group"):
        calibration_of(evaluation, ["good"], by_group=True)
