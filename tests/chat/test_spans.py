"""Scores of the parts of a reply are those of their tokens, and of no others."""

import numpy as np
import pytest

from uq_llm_integrations import Candidate, TokenTrace
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.chat.spans import SpanScores

METHODS = ("mean_nll", "maxprob")


def parts(texts: list[str], logprobs: list[float] | None = None, methods=METHODS) -> SpanScores:
    """Token i has the log-probability -i, so that a sum shows which tokens it is over."""
    values = np.array(logprobs or [-float(i) for i in range(len(texts))])
    candidate = Candidate((1,), tuple(range(len(texts))), "".join(texts), TokenTrace(9, values))
    return SpanScores(candidate, texts, methods)


def test_one_plain_text_has_no_parts():
    assert parts(["Par", "is."]).of_reply(Reply("Paris.")) == {}


def test_reasoning_and_answer():
    texts = ["<think>", "Hm", ".", "</think>", "Par", "is."]
    scores_of_parts = parts(texts).of_reply(Reply("Paris.", "Hm."))
    assert scores_of_parts["reasoning"]["tokens"] == [1, 3]
    assert scores_of_parts["answer"]["tokens"] == [4, 6]
    assert scores_of_parts["answer"]["scores"] == {"mean_nll": 4.5, "maxprob": 9.0}


def test_what_was_thought_can_be_said_again():
    scores_of_parts = parts(["Paris", "</think>", "Paris"]).of_reply(Reply("Paris", "Paris"))
    assert scores_of_parts["reasoning"]["tokens"] == [0, 1]
    assert scores_of_parts["answer"]["tokens"] == [2, 3]


def test_calls_and_their_arguments():
    texts = ['{"name": "f", "arguments": ', '{"a": ', "1", '}}\n{"name": "f", "arguments": ']
    texts += ['{"a": "', "x y", '"}}']
    calls = (ToolCall("f", '{"a": 1}', "1"), ToolCall("f", '{"a": "x y"}', "2"))
    first, second = parts(texts).of_reply(Reply("", None, calls))["tool_calls"]
    assert (first["id"], first["tokens"]) == ("1", [0, 4])
    assert first["fields"]["a"]["maxprob"] == 2.0
    assert (second["id"], second["tokens"]) == ("2", [3, 7])
    assert second["fields"]["a"]["maxprob"] == 5.0


def test_a_call_that_is_no_json_has_the_scores_of_all():
    texts = ["<f>", "a=1", "</f>"]
    (call,) = parts(texts).of_reply(Reply("", None, (ToolCall("f", '{"a": 1}', "1"),)))[
        "tool_calls"
    ]
    assert call["tokens"] == [0, 3] and "fields" not in call


def test_fields_of_an_object():
    texts = ['{"name": "', "Ann", '", "tags": ["', "x", '"], "home": {"no": ', "7", "}}"]
    fields = parts(texts).of_reply(Reply("".join(texts)), is_object=True)["fields"]
    assert {path: scores["maxprob"] for path, scores in fields.items()} == {
        "name": 1.0,
        "tags[0]": 3.0,
        "home.no": 5.0,
    }


def test_fields_whose_names_could_be_confused_have_scores_of_their_own():
    texts = ['{"a.b": ', "1", ', "a": {"b": ', "2", '}, "c": ', "3", ', "c": ', "4", "}"]
    fields = parts(texts).of_reply(Reply("".join(texts)), is_object=True)["fields"]
    assert {path: scores["maxprob"] for path, scores in fields.items()} == {
        '["a.b"]': 1.0,
        "a.b": 3.0,
        "c": 7.0,
    }


def test_arguments_have_the_scores_of_their_own_place():
    """Not those of an equal object elsewhere in the call."""
    texts = ['{"name": "f", "was": {"a": ', "1", '}, "arguments": {"a": ', "1", "}}"]
    reply = Reply("", None, (ToolCall("f", '{"a": 1}', "1"),))
    (call,) = parts(texts).of_reply(reply)["tool_calls"]
    assert call["fields"]["a"]["maxprob"] == 3.0


def test_an_object_that_was_cut_off_has_no_fields():
    assert parts(['{"a": ', "1"]).of_reply(Reply('{"a": 1'), is_object=True) == {}


def test_a_token_that_holds_more_than_the_field_counts_whole():
    fields = parts(['{"a', '": 7, "b', '": 8}']).of_reply(
        Reply('{"a": 7, "b": 8}'), is_object=True
    )["fields"]
    assert (fields["a"]["maxprob"], fields["b"]["maxprob"]) == (1.0, 2.0)


def test_methods_that_read_more_than_the_trace_have_no_scores_of_parts():
    scorer = parts(["a", "b"], methods=("mean_nll", "semantic_entropy", "TokenEntropy"))
    scores_of_parts = scorer.of_reply(Reply("b", "a"))
    assert set(scores_of_parts["answer"]["scores"]) == {"mean_nll"}


def test_a_character_may_span_tokens():
    """The first of its tokens adds no text."""
    scores_of_parts = parts(["Hm", "</think>", "", "é", "!"]).of_reply(Reply("é!", "Hm"))
    assert scores_of_parts["answer"]["tokens"] == [2, 5]
    assert scores_of_parts["answer"]["scores"]["mean_nll"] == pytest.approx(3.0)


def test_a_call_that_is_not_written_as_json_says_whose_scores_it_has():
    texts = ["[add(", "a=1", ")]"]
    reply = Reply("", tool_calls=(ToolCall("add", '{"a": 1}', "1"),))
    (call,) = parts(texts).of_reply(reply)["tool_calls"]
    assert (call["of"], call["tokens"]) == ("the whole reply", [0, 3])
