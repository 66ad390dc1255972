"""Continuations behind a prompt that passes once, against a pass of each whole text."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.backends.huggingface.test_architectures import PROMPT, backend_of, random_model
from uq_llm_integrations import Candidate, HuggingFaceBackend
from uq_llm_integrations.backends.batching import TOKENS_AT_ONCE

CONTINUATIONS = [(30, 31, 32, 33, 34, 35, 36, 37), (40,), (), (50, 51, 52)]


def scored_alone(backend: HuggingFaceBackend, continuations) -> list[Candidate]:
    """Each in a pass of its own, as a single continuation always is."""
    return [backend.run(backend.score(PROMPT, ids, top_logprobs=3)) for ids in continuations]


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """Note the rows and the columns of all that passes through the model."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    yield shapes
    hook.remove()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_the_prompt_passes_once_and_the_numbers_are_those_of_whole_passes(name):
    """The window of gemma2 is shorter than the prompt. Behind a last token nothing is scored."""
    model = random_model(name)
    with backend_of(model) as backend, passes(model) as shapes:
        found = backend.run(backend.score_all(PROMPT, CONTINUATIONS, top_logprobs=3))
        assert shapes == [(1, len(PROMPT)), (4, 7)]
        expected = scored_alone(backend, CONTINUATIONS)
    for one, other in zip(found, expected, strict=True):
        assert (one.token_ids, one.text) == (other.token_ids, other.text)
        for field in ("logprob", "entropy", "varentropy", "root_sum", "top_logprobs"):
            values = [getattr(candidate.trace, field) for candidate in (one, other)]
            np.testing.assert_allclose(*values, rtol=0, atol=1e-4, err_msg=field)
        np.testing.assert_array_equal(one.trace.rank, other.trace.rank)


@pytest.mark.parametrize("name", ["mamba", "qwen3_next"])
def test_behind_a_model_that_keeps_a_state_whole_texts_pass(name):
    model = random_model(name)
    with backend_of(model) as backend, passes(model) as shapes:
        found = backend.run(backend.score_all(PROMPT, CONTINUATIONS))
        assert shapes == [(4, len(PROMPT) + 8)]
        expected = scored_alone(backend, CONTINUATIONS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.trace.logprob, other.trace.logprob, rtol=0, atol=1e-4)


def test_single_tokens_are_scored_by_the_pass_of_the_prompt():
    model = random_model("llama")
    with backend_of(model) as backend, passes(model) as shapes:
        found = backend.run(backend.score_all(PROMPT, [(7,), (8,), ()]))
        assert shapes == [(1, len(PROMPT))]
        expected = scored_alone(backend, [(7,), (8,), ()])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.trace.logprob, other.trace.logprob, rtol=0, atol=1e-4)


def test_what_is_kept_of_the_prompt_counts_towards_a_batch():
    long = tuple(range(3, 259)) * 4
    model = random_model("llama")
    with backend_of(model) as backend, passes(model) as shapes:
        backend.run(backend.score_all(long, [(7, 8, 9)] * 20))
    rows = TOKENS_AT_ONCE // (len(long) // 4 + 3)
    assert shapes == [(1, len(long)), *[(rows, 2)] * (20 // rows), (20 % rows, 2)]


def test_too_little_memory_halves_the_continuations_that_pass_together():
    model = random_model("llama")
    with backend_of(model) as backend, passes(model) as shapes:
        expected = backend.run(backend.score_all(PROMPT, CONTINUATIONS))
        shapes.clear()
        model.register_forward_pre_hook(at_most_two_rows)
        found = backend.run(backend.score_all(PROMPT, CONTINUATIONS))
    assert shapes == [(1, len(PROMPT)), (4, 7), (2, 7)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.trace.logprob, other.trace.logprob, rtol=0, atol=1e-4)


def at_most_two_rows(model, given) -> None:
    if len(given[0]) > 2:
        raise torch.OutOfMemoryError
