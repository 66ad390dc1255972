"""The scripted backend: its statistics, its copies and its arguments."""

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uq_llm_integrations import (
    ConfigurationError,
    EarlyStop,
    EngineError,
    Request,
    ScriptedBackend,
    ScriptedLine,
)
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics

PROMPT = Request((65,))


def pickled(backend: ScriptedBackend) -> ScriptedBackend:
    return pickle.loads(pickle.dumps(backend))


def texts(backend: ScriptedBackend, n: int = 1) -> list[str]:
    return [one.text for one in backend.run(backend.generate(Request((65,), n=n)))]


@given(st.floats(1e-6, 1.0))
@example(1.0)
@example(1 / 256)
def test_the_statistics_are_those_of_the_whole_distribution(probability):
    with ScriptedBackend(["abc"], probability=probability) as backend:
        (candidate,) = backend.run(backend.generate(PROMPT))
    with np.errstate(divide="ignore"):
        logprobs = np.log(np.full((3, 256), (1 - probability) / 255))
    logprobs[range(3), list(b"abc")] = np.log(probability)
    expected = exact_statistics(dense_rows(logprobs))
    for name, values in expected.items():
        found = getattr(candidate.trace, name)
        np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(candidate.trace.logprob, np.log(probability), rtol=1e-12)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, float("nan")])
def test_a_probability_that_no_token_can_have_is_refused(probability):
    with pytest.raises(ConfigurationError, match="above 0 up to 1"):
        ScriptedBackend(["a"], probability=probability)
    with pytest.raises(ConfigurationError, match="above 0 up to 1"):
        ScriptedLine("a", probability)


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"sampling": {"max_tokens": 2}}, "ab", "length"),
        ({"sampling": {"stop": "cd"}}, "ab", "stop"),
        ({"sampling": {"stop": ["cd"], "include_stop_str_in_output": True}}, "abcd", "stop"),
        ({"until": lambda text: text == "abc"}, "abc", "boundary"),
        ({"early_stop": EarlyStop(0.1, window=4)}, "abcd", "early_stop"),
        ({"early_stop": EarlyStop(9.0, window=4)}, "abcdef", "stop"),
    ],
)
def test_a_line_ends_where_its_request_ends_it(fields, text, reason):
    backend = ScriptedBackend(["abcdef"])
    (candidate,) = backend.run(backend.generate(Request((65,), **fields)))
    assert (candidate.text, candidate.finish_reason) == (text, reason)
    assert len(candidate.trace) == len(candidate.token_ids)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_equal_and_goes_on_where_the_original_was(copied):
    original = ScriptedBackend(["a", "b", "c", EngineError("no")], probability=0.7)
    assert texts(original) == ["a"]
    twin = copied(original)
    assert twin == original
    assert [one.prompt_ids for one in twin.requests] == [(65,)]
    assert texts(twin) == ["b"]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_what_a_copy_answers_changes_nothing_in_the_original(copied):
    original = ScriptedBackend(["a", "b", "c"])
    assert texts(copied(original), n=2) == ["a", "b"]
    assert texts(original) == ["a"]
    assert len(original.requests) == 1


def test_backends_of_different_scripts_are_not_equal():
    assert ScriptedBackend(["a"]) != ScriptedBackend(["b"])
    assert ScriptedBackend(["a"]) != ScriptedBackend(["a"], probability=0.5)
    assert ScriptedBackend(["a"]) == ScriptedBackend(["a"])


async def test_async_with_closes_the_backend_off_the_loop():
    threads = []

    class Closing(ScriptedBackend):
        def close(self) -> None:
            threads.append(threading.current_thread())

    async with Closing(["a"]) as backend:
        assert await backend.encode("A") == (65,)
        assert not threads
    assert threads and threads[0] is not threading.current_thread()
