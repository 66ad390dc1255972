"""A cache in a file that two programs share."""

import json
import os
import subprocess
import sys

import pytest
from langchain_core.messages import HumanMessage

from tests.langchain.scripted_chat import scripted
from tests.langchain.sqlite_cache import SQLiteCache, conversation


def run(path, seed):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.langchain.sqlite_cache", str(path)],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.subprocess
def test_a_second_program_gets_the_answers_and_scores_of_the_first(tmp_path):
    first, second = run(tmp_path / "cache.db", "1"), run(tmp_path / "cache.db", "2")
    assert first[0] == 3 and second == [0, *first[1:]]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_the_scores_of_an_earlier_answer_are_no_part_of_a_key(tmp_path):
    chat = scripted("Paris.", cache=SQLiteCache(tmp_path / "cache.db"))
    conversation(chat, {})
    asked = len(chat.backend.requests)
    messages = [HumanMessage("What is the capital of France?")]
    answer = chat.model_copy(update={"cache": False}).invoke(messages)  # other seconds, other id
    chat.invoke([*messages, answer, HumanMessage("Sure?")])
    assert len(chat.backend.requests) == asked + 1


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize(
    "call",
    [
        {"stop": ["s"]},
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]},
        {"response_format": {"type": "json_object"}},
        {"temperature": 0.1 + 0.2},
        {"methods": ["maxprob"]},
        {"tool_choice": "none"},
    ],
    ids=str,
)
def test_what_a_call_asks_for_counts(call, tmp_path):
    chat = scripted('{"a": 1}', cache=SQLiteCache(tmp_path / "cache.db"))
    for options in ({}, call, {}, call):
        chat.invoke("?", **options)
    assert len(chat.backend.requests) == 2


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_how_long_a_call_may_take_does_not_count(tmp_path):
    chat = scripted("Paris.", cache=SQLiteCache(tmp_path / "cache.db"))
    for options in ({}, {"timeout": 9.0}, {"max_retries": 2}, {"top_p": None}):
        chat.invoke("?", **options)
    assert len(chat.backend.requests) == 1
