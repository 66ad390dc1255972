"""Whether an answer is right, in each of the ways to compare it."""

import asyncio

import pytest

from uq_llm_integrations import (
    ConfigurationError,
    EngineDeadError,
    ScriptedBackend,
    UncertaintyModel,
    squad_answer,
)
from uq_llm_integrations.evaluation import (
    Contains,
    ExactMatch,
    Grade,
    LLMJudge,
    NumericMatch,
    Question,
    RegexMatch,
    RougeMatch,
)
from uq_llm_integrations.evaluation.correctness import as_grader, graded


@pytest.mark.parametrize(
    ("grader", "text", "answers", "correct"),
    [
        (ExactMatch(), " paris. ", ("Paris",), True),
        (ExactMatch(), "City of Light", ("Paris", "city of light"), True),
        (ExactMatch(), "It is Paris", ("Paris",), False),
        (ExactMatch(squad_answer), "The Paris", ("paris",), True),
        (Contains(), "It is Paris, of course.", ("Lyon", "Paris"), True),
        (Contains(), "It is Parisian", ("Paris",), False),
        (Contains(), "new york city", ("New York",), True),
        (Contains(), "anything", ("?",), False),
        (RegexMatch(), "In 1969.", (r"\b1969\b",), True),
        (RegexMatch(ignore_case=False), "paris", ("Paris",), False),
        (NumericMatch(), "12 plus 30 is 42.", ("42",), True),
        (NumericMatch(), "It has 1,234.5 units", ("1234.5",), True),
        (NumericMatch(), "about 41.9", ("42",), False),
        (NumericMatch(absolute=0.2), "about 41.9", ("42",), True),
        (NumericMatch(relative=0.01), "-41.9", ("-42",), True),
        (NumericMatch(), "no number", ("42",), False),
        (RougeMatch(threshold=0.5), "the city of Paris", ("Paris",), False),
        (RougeMatch(threshold=0.4), "the city of Paris", ("Paris",), True),
    ],
)
def test_an_answer_is_right_where_it_fits_one_of_the_answers(grader, text, answers, correct):
    assert grader(text, Question("?", answers)).correct is correct


@pytest.mark.parametrize(
    "grader", [ExactMatch(), Contains(), RegexMatch(), NumericMatch(), RougeMatch()]
)
def test_without_answers_nothing_is_known(grader):
    assert grader("Paris", Question("?")) == Grade(None, reason="the question has no answers")


def test_answers_of_the_wrong_kind_make_the_grade_unknown():
    assert "no number" in NumericMatch()("42", Question("?", ("forty",))).reason
    assert "no regular expression" in RegexMatch()("42", Question("?", ("(",))).reason


@pytest.mark.parametrize(
    "make", [lambda: NumericMatch(relative=-1), lambda: RougeMatch(2), lambda: LLMJudge(3)]
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigurationError, match="allowed"):
        make()


def test_graders_have_names_and_may_be_functions():
    assert as_grader("contains") == Contains()
    function = as_grader(lambda text, question: text in question.answers)
    assert asyncio.run(graded(function, "a", Question("?", ("a",)))) == Grade(True)
    with pytest.raises(ConfigurationError, match="grader is 'exakt'; allowed are 'exact'"):
        as_grader("exakt")


def test_a_grader_that_fails_costs_its_grade_alone():
    def fail(text, question):
        raise ValueError("no idea")

    found = asyncio.run(graded(fail, "a", Question("?")))
    assert found == Grade(None, reason="the grader failed: no idea")
    found = asyncio.run(graded(lambda *_: "yes", "a", Question("?")))
    assert found.correct is None and "not a Grade or a bool" in found.reason


def judged(said, text="It is Paris"):
    judge = LLMJudge(UncertaintyModel(ScriptedBackend([said])))
    return asyncio.run(graded(judge, text, Question("Capital?", ("Paris",))))


def test_a_model_is_a_judge():
    assert judged("CORRECT").correct is True
    assert judged("Incorrect, since ...").correct is False
    assert judged("Hm.") == Grade(None, reason="the judge gave no verdict but 'Hm.'")
    assert "the grader failed" in judged(EngineDeadError("gone")).reason
    assert asyncio.run(
        LLMJudge(UncertaintyModel(ScriptedBackend(["a"])))("a", Question("?"))
    ).reason


def test_a_function_is_a_judge_and_sees_texts_as_they_are():
    prompts = []

    def judge(prompt):
        prompts.append(prompt)
        return "CORRECT"

    grade = asyncio.run(graded(LLMJudge(judge), "{answers}", Question("Capital?", ("Paris",))))
    assert grade.correct and "{answers}" in prompts[0] and prompts[0].count("Paris") == 1
