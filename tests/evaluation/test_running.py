"""A model is asked all questions of a set, and nothing that was answered is lost."""

import json

import pytest

from tests.conftest import Meeting
from uq_llm_integrations import (
    ConfigurationError,
    EngineDeadError,
    EngineLostError,
    InvalidRequestError,
    ScriptedBackend,
    ScriptedLine,
    UncertaintyModel,
)
from uq_llm_integrations.evaluation import Evaluation, Question, evaluate, to_parquet
from uq_llm_integrations.testing import full_disk

QUESTIONS = [
    Question(f"Question {i}?", ("yes",), f"q{i}", ["even", "odd"][i % 2]) for i in range(6)
]
LINES = {
    one.question: [ScriptedLine("yes" if i % 2 else "no", 0.9 - 0.1 * i)]
    for i, one in enumerate(QUESTIONS)
}


def asked(script=None, **options):
    return UncertaintyModel(ScriptedBackend(script or LINES), methods=["entropy"], **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evaluation.jsonl"


def test_each_question_is_an_item_with_answer_grade_scores_and_cost(path):
    with asked() as model:
        evaluation = evaluate(model, QUESTIONS, path)
        expected = model.generate("Question 2?").score("entropy").value
    assert [one.text for one in evaluation.items] == ["no", "yes"] * 3
    assert evaluation.correct == [False, True] * 3
    assert evaluation.scores("entropy")[2] == expected
    third = evaluation.items[2]
    assert third.question == QUESTIONS[2] and third.usage.generated_tokens == 2
    assert third.tokens.texts == ("n", "o") and len(third.tokens.entropy) == 2
    assert Evaluation.load(path) == evaluation


def test_it_goes_on_where_it_stopped_and_drops_a_line_that_was_cut(path):
    with asked() as model:
        whole = evaluate(model, QUESTIONS, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:40])
    assert len(Evaluation.load(path).items) == 3
    with asked() as model:
        again = evaluate(model, QUESTIONS, path)
        assert len(model.backend.requests) == 3
    assert again.correct == whole.correct
    assert len(path.read_bytes().splitlines()) == 7


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_full_disk_is_an_error_and_it_goes_on_once_there_is_room(share, path, tmp_path):
    with asked() as model:
        whole = evaluate(model, QUESTIONS, path)
        size = path.stat().st_size
        path.unlink()
        with (
            full_disk(tmp_path, after=int(size * share)),
            pytest.raises(ConfigurationError, match="cannot be written"),
        ):
            evaluate(model, QUESTIONS, path)
        assert evaluate(model, QUESTIONS, path).correct == whole.correct


def test_a_file_whose_first_line_was_cut_begins_anew(path):
    path.write_text('{"evalu')
    with pytest.raises(ConfigurationError, match="no whole line"):
        Evaluation.load(path)
    with asked() as model:
        assert len(evaluate(model, QUESTIONS, path).items) == 6


def test_a_question_that_fails_is_an_item_with_its_error(path):
    script = {**LINES, "Question 1?": [InvalidRequestError("no such thing")]}
    with asked(script) as model:
        evaluation = evaluate(model, QUESTIONS, path)
        assert [one.question.id for one in evaluation.failed] == ["q1"]
        assert evaluation.failed[0].error == "InvalidRequestError: no such thing"
        assert evaluation.correct == [False, False, True, False, True]
        requests = len(model.backend.requests)
        evaluate(model, QUESTIONS, path)
        assert len(model.backend.requests) == requests, "it would fail again"


def test_a_question_that_may_succeed_another_time_is_asked_again(path):
    script = {**LINES, "Question 1?": [EngineDeadError("gone"), "yes"]}
    with asked(script) as model:
        assert len(evaluate(model, QUESTIONS, path).failed) == 1
        assert evaluate(model, QUESTIONS, path).correct == [False, True] * 3


def test_what_leaves_no_hope_ends_it_and_keeps_what_there_is(path):
    script = {**LINES, "Question 4?": [EngineLostError("for good")]}
    with asked(script) as model, pytest.raises(EngineLostError, match="for good"):
        evaluate(model, QUESTIONS, path, concurrency=1)
    assert len(Evaluation.load(path).items) == 4


def test_so_many_questions_are_asked_at_the_same_time(path):
    with UncertaintyModel(Meeting(LINES, calls=3), methods=["entropy"]) as model:
        evaluation = evaluate(model, QUESTIONS, path, concurrency=3, cost_items=0)
    assert len(evaluation.graded) == 6


def test_the_cost_of_a_method_is_that_of_its_own_evidence(path):
    with asked(n=1, method_options={"samples": 3}) as model:
        methods = ["entropy", "lexical_similarity"]
        evaluation = evaluate(model, QUESTIONS, path, methods=methods, cost_items=2)
    costs = [one.costs for one in evaluation.items]
    assert [one is None for one in costs] == [False, False, True, True, True, True]
    assert costs[0]["entropy"].forward_passes == 0
    assert costs[0]["lexical_similarity"].generated_tokens == 3 * len("no")


def test_the_answer_of_a_model_that_abstains_or_raises_is_its_own(path):
    careful = {"uncertain_when": "entropy > 0", "on_high_uncertainty": "raise"}
    with asked(**careful) as model:
        evaluation = evaluate(model, QUESTIONS, path)
    assert evaluation.correct == [False, True] * 3
    assert all(one.is_uncertain for one in evaluation.items)


def test_a_template_has_the_question_and_its_sources_as_they_are(path):
    question = Question("Is {sources} a word?", ("yes",), "1", sources=("A book",))
    with asked({"A book: Is {sources} a word?": ["yes"]}) as model:
        evaluation = evaluate(model, [question], path, template="{sources}: {question}")
    assert evaluation.correct == [True]


def test_the_file_of_another_evaluation_is_refused(path):
    with asked() as model:
        evaluate(model, QUESTIONS, path)
        with pytest.raises(ConfigurationError, match="of another evaluation: grader is 'Exact"):
            evaluate(model, QUESTIONS, path, grader="exact")
        with pytest.raises(ConfigurationError, match="count is 5, and was 6"):
            evaluate(model, QUESTIONS[:5], path)
    with asked(temperature=0.5) as model, pytest.raises(ConfigurationError, match="temperature"):
        evaluate(model, QUESTIONS, path)


def test_any_other_file_is_refused_and_left_as_it_is(path):
    path.write_text("my diary")
    with asked() as model, pytest.raises(ConfigurationError, match="holds no evaluation"):
        evaluate(model, QUESTIONS, path)
    assert path.read_text() == "my diary"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Evaluation.load(path.parent / "nowhere.jsonl")


def test_a_damaged_line_is_named(path):
    with asked() as model:
        evaluate(model, QUESTIONS, path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], '{"number": "one"}', *lines[3:]]) + "\n")
    with pytest.raises(ConfigurationError, match="line 3: this is no item"):
        Evaluation.load(path)
    path.write_text(json.dumps(json.loads(lines[0]) | {"evaluation": 2}) + "\n")
    with pytest.raises(ConfigurationError, match="holds no evaluation"):
        Evaluation.load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "?"}, "must have {question}"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"cost_items": -1}, "cost_items is -1"),
        ({"methods": ["entropy", "TokenEntropy"]}, "TokenEntropy scores each token"),
        ({"grader": "exakt"}, "grader is 'exakt'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(path, options, message):
    with asked() as model:
        with pytest.raises(ConfigurationError, match=message):
            evaluate(model, QUESTIONS, path, **options)
        assert model.backend.requests == [] and not path.exists()


def test_questions_must_be_some_and_told_apart(path):
    with asked() as model:
        with pytest.raises(ConfigurationError, match="there are no questions"):
            evaluate(model, [], path)
        with pytest.raises(ConfigurationError, match="two questions have the id 'q0'"):
            evaluate(model, [QUESTIONS[0], QUESTIONS[0]], path)
        with pytest.raises(ConfigurationError, match="wanted is a list"):
            evaluate(model, ["Question?"], path)


def test_a_method_that_was_not_evaluated_has_no_scores(path):
    with asked() as model:
        evaluation = evaluate(model, QUESTIONS, path)
    with pytest.raises(
        ConfigurationError, match="'maxprob' was not evaluated; allowed are entropy"
    ):
        evaluation.scores("maxprob")


def test_parquet_has_a_row_an_item(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    script = {**LINES, "Question 1?": [InvalidRequestError("no such thing")]}
    with asked(script) as model:
        to_parquet(evaluate(model, QUESTIONS, path), path.with_suffix(".parquet"))
    rows = parquet.read_table(path.with_suffix(".parquet")).to_pylist()
    assert [row["correct"] for row in rows] == [False, None, False, True, False, True]
    assert rows[0]["score_entropy"] > 0 and rows[0]["answers"] == ["yes"]
    assert rows[1]["text"] is None and "no such thing" in rows[1]["error"]


def test_a_bar_on_stderr_says_how_far_it_is(path, capsys):
    with asked() as model:
        evaluate(model, QUESTIONS, path, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "0 failed" in shown.err
