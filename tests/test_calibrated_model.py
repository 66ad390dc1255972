"""Answers of a calibrated model: their confidence, the risk that is kept, and what is noticed."""

import json
from pathlib import Path

import pytest

from uq_llm_integrations import (
    CalibrationMismatchError,
    ChatVLLMUncertainty,
    ConfigurationError,
    Retry,
    ScriptedBackend,
    ScriptedLine,
    Single,
    UncertaintyModel,
    VLLMUncertaintyLLM,
    llama_index,
)
from uq_llm_integrations.calibration import Calibration, fit_calibration

ANSWERS = {
    f"question {i}": [ScriptedLine("right" if i % 4 or i > 60 else "wrong", 0.4 + i / 200)]
    for i in range(100)
}
"""The lower the probability of an answer's tokens, the more often it is wrong."""

SURE, UNSURE = "question 99", "question 0"


@pytest.fixture(scope="module")
def model() -> UncertaintyModel:
    return UncertaintyModel(ScriptedBackend(ANSWERS), methods=["entropy", "maxprob"])


def calibrated(model: UncertaintyModel, *methods: str, **options) -> Calibration:
    results = model.generate_all(list(ANSWERS))
    columns = {name: [one.score(name) for one in results] for name in methods or ("entropy",)}
    right = [one.text == "right" for one in results]
    return fit_calibration(columns, right, origin=model.origin(), **options)


@pytest.fixture(scope="module")
def calibration(model, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("calibration") / "entropy.json"
    calibrated(model, risk=0.2).save(path)
    return str(path)


def test_each_answer_has_a_confidence(model, calibration):
    sure, unsure = model.generate_all([SURE, UNSURE], calibration=calibration)
    made = Calibration.load(calibration)
    for result in (sure, unsure):
        expected = made.confidence_of({"entropy": result.score("entropy")})
        assert result.confidence == pytest.approx(expected)
    assert sure.confidence > 0.9 > 0.7 > unsure.confidence
    assert model.generate(SURE).confidence is None


def test_a_stack_of_methods_has_its_confidence_without_being_asked_for_their_scores(model):
    made = calibrated(model, "entropy", "maxprob")
    plain = model.with_options(methods=["perplexity"], calibration=made)
    result = plain.generate(SURE)
    assert result.confidence == pytest.approx(made.confidence_of(result.scores[0]))
    assert set(result.scores[0]) == {"perplexity", "entropy", "maxprob", "error_probability"}


def test_chats_have_it_too(model):
    chats = model.with_options(chat_template=True)
    ready = model.with_options(calibration=calibrated(chats))
    *_, last = ready.stream(SURE)
    for result in (last.result, ready.chat(SURE).result):
        assert 0.5 < result.confidence < 1


def test_given_texts_have_it_too(model, calibration):
    ready = model.with_options(calibration=calibration)
    assert 0.5 < ready.score(SURE, "right").confidence < 1
    (cut,) = ready.score_truncated(SURE, ["rig"])
    assert 0 < 1 - cut.scores["error_probability"].value < 1


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (ChatVLLMUncertainty, lambda llm: llm.invoke(SURE).response_metadata),
        (VLLMUncertaintyLLM, lambda llm: llm.generate([SURE]).generations[0][0].generation_info),
        (llama_index.VLLMUncertaintyLLM, lambda llm: llm.complete(SURE).additional_kwargs),
    ],
)
def test_both_frameworks_have_it_in_their_metadata(model, kind, metadata):
    llm = kind(backend=model.backend)
    made = calibrated(llm.core)  # each class has defaults of its own
    found = metadata(kind(backend=model.backend, calibration=made))["uncertainty"]
    assert found["confidence"] == pytest.approx(made.confidence_of(found["scores"]))


def test_an_unknown_score_has_an_unknown_confidence_and_its_reason(model, calibration):
    silent = ScriptedBackend({SURE: [""]})
    result = UncertaintyModel(silent, model.settings).generate(SURE, calibration=calibration)
    assert result.confidence is None
    assert "no tokens" in result.score("error_probability").reason


@pytest.mark.parametrize(("question", "is_uncertain"), [(SURE, False), (UNSURE, True)])
def test_conditions_can_be_on_the_confidence(model, calibration, question, is_uncertain):
    ready = model.with_options(calibration=calibration, uncertain_when="confidence < 0.8")
    assert ready.generate(question).decision.is_uncertain is is_uncertain


@pytest.mark.filterwarnings("ignore:the calibration was made")  # of answers that are not retried
def test_a_strategy_can_go_by_the_confidence(model, calibration):
    options = {"calibration": calibration, "calibration_mismatch": "warn"}
    retry = Retry(Single(), "confidence < 0.8", attempts=2)
    assert model.generate(UNSURE, strategy=retry, **options).attempts
    assert not model.generate(SURE, strategy=retry, **options).attempts


def test_a_confidence_without_a_calibration_is_refused(model):
    with pytest.raises(ConfigurationError, match="error_probability needs a calibration"):
        model.with_options(uncertain_when="confidence < 0.8")


def test_a_risk_is_kept_by_abstaining(model, calibration):
    ready = model.with_options(
        calibration=calibration, risk=0.2, on_high_uncertainty="abstain", abstention_text="?"
    )
    texts = [one.text for one in ready.generate_all(list(ANSWERS))]
    answered = [one for one in texts if one != "?"]
    assert 20 < len(answered) < 100
    assert answered.count("wrong") / len(answered) <= 0.2


def test_a_risk_adds_to_the_users_own_condition(model, calibration):
    ready = model.with_options(calibration=calibration, risk=0.2, uncertain_when="maxprob > 9")
    assert ready.generate(UNSURE).decision.is_uncertain
    assert not ready.generate(SURE).decision.is_uncertain


def test_a_risk_that_cannot_be_promised_says_what_can(model, calibration):
    with pytest.raises(ConfigurationError, match=r"risk=0.01: .*cannot be promised.*the best"):
        model.with_options(calibration=calibration, risk=0.01)


def test_groups_have_thresholds_of_their_own(model):
    made = calibrated(model, groups=["low"] * 50 + ["high"] * 50, risk=0.2)
    ready = model.with_options(calibration=made, risk=0.2)
    uncertain = {
        group: ready.generate(SURE, group=group).decision.is_uncertain
        for group in ("low", "high", "other", None)
    }
    assert uncertain == {"low": True, "high": False, "other": True, None: True}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"temperature": 0.2}, "temperature is 0.2, and was not set"),
        ({"n": 3}, "n is 3, and was 1"),
        ({"chat_template": True}, "chat_template is true, and was false"),
        ({"strategy": {"type": "best_of_n", "n": 2}}, "strategy is"),
    ],
)
def test_a_calibration_of_something_else_is_refused_or_warned_of(model, calibration, options, what):
    with pytest.raises(CalibrationMismatchError, match=what):
        model.generate(SURE, calibration=calibration, **options)
    with pytest.warns(UserWarning, match=what):
        model.generate(SURE, calibration=calibration, calibration_mismatch="warn", **options)


def test_what_changes_no_score_is_no_other_thing(model, calibration):
    options = {"methods": ["perplexity"], "token_scores": True, "uncertain_when": "perplexity > 9"}
    assert model.generate(SURE, calibration=calibration, timeout=60, **options).confidence


def test_another_model_is_noticed(model, calibration, monkeypatch):
    data = json.loads(Path(calibration).read_text())
    data["origin"]["model"] = "another"
    with pytest.raises(CalibrationMismatchError, match="the model is scripted, and was another"):
        model.generate(SURE, calibration=data)


def test_a_risk_or_a_group_needs_a_calibration(model):
    for options in ({"risk": 0.1}, {"group": "law"}):
        with pytest.raises(ConfigurationError, match="need a calibration"):
            model.with_options(**options)


def test_a_calibration_is_part_of_what_caches_go_by(model, calibration):
    one = model.with_options(calibration=calibration).identity
    other = model.with_options(calibration=calibrated(model, kind="isotonic")).identity
    assert len({str(one), str(other), str(model.identity)}) == 3
