"""What the worker reads of a request: a malformed key is passed by, and the engine lives."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations.backends.vllm.worker import extension as probing
from uq_llm_integrations.backends.vllm.worker.compat import PromptPart
from uq_llm_integrations.backends.vllm.worker.early_stop import EarlyStopper
from uq_llm_integrations.backends.vllm.worker.extra_args import MOST_TOKENS, Keys, read_keys
from uq_llm_integrations.backends.vllm.worker.protocol import (
    REQUEST_KEY,
    SCORE_KEY,
    STOP_KEY,
    TOKENS_KEY,
)
from uq_llm_integrations.backends.vllm.worker.recorder import Recorder

SIZE = 31
RULE = ["entropy", 4, 2.5, 3]


def test_what_the_client_writes_is_read():
    extra = {REQUEST_KEY: "a", STOP_KEY: RULE, TOKENS_KEY: ["b", [1, 2]], SCORE_KEY: ["c", 3]}
    assert read_keys(extra) == Keys("a", ("entropy", 4, 2.5, 3), ("b", [1, 2]), ("c", 3))
    assert read_keys(None) == read_keys({"another": object()}) == Keys()


MALFORMED = [
    {REQUEST_KEY: 3},
    {REQUEST_KEY: ["a"]},
    {REQUEST_KEY: None},
    *({STOP_KEY: one} for one in (None, 0, "entropy", [], ["entropy"], [*RULE, 1], {"a": 1})),
    {STOP_KEY: ["perplexity", 4, 2.5, 3]},
    {STOP_KEY: [["entropy"], 4, 2.5, 3]},
    *({STOP_KEY: ["entropy", one, 2.5, 3]} for one in (0, -1, 1.5, "4", True, 10**30)),
    *({STOP_KEY: ["entropy", 4, one, 3]} for one in ("2", None, True, float("nan"), 10**400)),
    *({STOP_KEY: ["entropy", 4, 2.5, one]} for one in (-1, 1.0, None, True, 2**63)),
    *({TOKENS_KEY: one} for one in (None, "ab", ["b"], ["b", 1], ["b", []], [1, [1]])),
    *({TOKENS_KEY: ["b", one]} for one in ([-1], ["1"], [1.0], [2**63], [0] * (MOST_TOKENS + 1))),
    *({SCORE_KEY: one} for one in (None, "c", ["c"], ["c", "3"], ["c", -1], [3, 3], ["c", 1, 2])),
]


@pytest.mark.parametrize("extra", MALFORMED, ids=repr)
def test_what_is_malformed_is_not_observed(extra):
    assert read_keys({REQUEST_KEY: "a", **extra}) is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
TOKEN = st.integers(0, 2 * SIZE) | PLAIN
RULES = st.tuples(
    st.sampled_from(["entropy", "self_certainty"]), st.integers(-1, 4), st.floats(), TOKEN
)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        REQUEST_KEY: st.text(max_size=2) | PLAIN,
        STOP_KEY: RULES | PLAIN,
        TOKENS_KEY: st.tuples(st.text(max_size=2), st.lists(TOKEN, max_size=3)) | PLAIN,
        SCORE_KEY: st.tuples(st.text(max_size=2), st.integers(-1, 3)) | PLAIN,
    },
)


@fuzz()
@given(extra=EXTRAS)
def test_whatever_a_request_carries_is_read_or_passed_by(extra):
    keys = read_keys(extra)
    if keys is None:
        return
    assert keys.request == extra.get(REQUEST_KEY)
    if keys.rule:
        assert keys.rule[1] >= 1 and math.isfinite(keys.rule[2]) and keys.rule[3] >= 0
    assert keys.tokens is None or min(keys.tokens[1]) >= 0
    assert keys.score is None or keys.score[1] >= 0


def test_tokens_beyond_the_vocabulary_are_passed_by(monkeypatch):
    recorder, logits = Recorder(), torch.zeros(1, SIZE)
    monkeypatch.setattr(probing, "RECORDER", recorder)
    monkeypatch.setattr(probing, "EARLY_STOPPER", EarlyStopper())
    extra = {REQUEST_KEY: "a", STOP_KEY: ["entropy", 1, 0.0, SIZE], TOKENS_KEY: ["b", [1, SIZE]]}
    params = SimpleNamespace(extra_args=extra, structured_outputs=None, logprobs=None)
    rows = [(0, probing.Observation.of(params), 0)]
    probing._stop(logits, probing._record(logits, rows), rows)
    assert recorder.requests == ["a"]
    assert not logits.any()


def test_a_prompt_with_a_malformed_key_is_passed_by():
    params = SimpleNamespace(extra_args={SCORE_KEY: ["a"]})
    assert probing._prompt_rows(PromptPart(0, 2, params)) == []
