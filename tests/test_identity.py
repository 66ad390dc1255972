"""Keys of caches: equal settings have the same one everywhere, any other settings another."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.test_options import VALUES, WITH
from uq_llm_integrations import (
    Backend,
    BestOfN,
    Boundary,
    HuggingFaceBackend,
    HybridBackend,
    MethodOptions,
    Result,
    Retry,
    RetryErrors,
    ScriptedBackend,
    Settings,
    Single,
    Stepwise,
    UncertaintyModel,
    VLLMEngineBackend,
    agreement,
    evidence_method,
    register_method,
    score,
)
from uq_llm_integrations.strategies.base import Strategy
from uq_llm_integrations.strategies.conditions import Custom

OF_NO_ANSWER = {"timeout", "max_retries", "calibration_mismatch"}


def key(backend=None, **options) -> str:
    return repr(UncertaintyModel(backend or ScriptedBackend(["a"]), **options).identity)


@pytest.mark.parametrize("option", Settings.model_fields)
def test_a_changed_option_is_another_key_where_it_changes_answers(option):
    needed = WITH.get(option, {})
    is_same = key(**needed) == key(**{**needed, option: VALUES[option]})
    assert is_same == (option in OF_NO_ANSWER)


numbers = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)


@given(numbers, numbers)
@example(0.0, -0.0)
def test_thresholds_share_a_key_only_where_they_are_equal(one, other):
    keys = [key(uncertain_when=score("entropy") > number) for number in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


plain_data = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), plain_data), st.randoms())
def test_the_order_of_a_mapping_changes_no_key_and_its_values_do(data, chance):
    items = list(data.items())
    chance.shuffle(items)
    sampling = [{"extra_args": one} for one in (data, dict(items), {**data, "more": 1})]
    keys = [key(sampling=one) for one in sampling]
    assert keys[0] == keys[1] != keys[2]


def test_the_order_counts_where_the_model_is_held_to_it():
    both = {"a": {"type": "string"}, "b": {"type": "string"}}
    schemas = [{"properties": dict(one)} for one in (both.items(), reversed(both.items()))]
    keys = {key(sampling={"structured_outputs": {"json": one}}) for one in schemas}
    hedges = {"likely": 0.7, "unlikely": 0.2}
    options = [
        MethodOptions(hedges=dict(one)) for one in (hedges.items(), reversed(hedges.items()))
    ]
    assert len(keys | {key(method_options=one) for one in options}) == 4


def limited(limit):
    return lambda result: len(result.text) > limit


def with_default(result, limit=3):
    return len(result.text) > limit


class Longer:
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, result):
        return len(result.text) > self.limit

    def method(self, result):
        return len(result.text) > self.limit


def with_lock(limit):
    lock = Lock()
    return lambda result: lock.locked() or len(result.text) > limit


LIMIT = 3

FUNCTIONS = [
    limited(3),
    limited(4),
    lambda result: len(result.text) > 3,
    lambda result: len(result.text) > 4,
    lambda result: len(result.text) > LIMIT,
    lambda result: any(len(one.text) > 3 for one in result.candidates),
    lambda result: any(len(one.text) > 4 for one in result.candidates),
    with_default,
    partial(with_default, limit=4),
    partial(with_default, limit=5),
    Longer(3),
    Longer(4),
    Longer(3).method,
    Longer(4).method,
    with_lock(3),
    with_lock(3),
]


def test_functions_share_a_key_only_where_they_do_the_same():
    keys = [key(uncertain_when=Custom(one, "long")) for one in FUNCTIONS]
    assert len(set(keys)) == len(FUNCTIONS)
    again = [key(uncertain_when=Custom(one, "long")) for one in FUNCTIONS]
    assert again == keys
    assert key(uncertain_when=Custom(limited(3), "long")) == keys[0]
    assert not any(" at 0x" in one for one in keys)


def test_what_a_function_reads_around_it_counts(monkeypatch):
    before = key(uncertain_when=Custom(FUNCTIONS[4], "long"))
    monkeypatch.setitem(FUNCTIONS[4].__globals__, "LIMIT", 9)
    assert key(uncertain_when=Custom(FUNCTIONS[4], "long")) != before


def test_every_place_of_a_function_counts():
    def key_of(function):
        return {
            key(strategy=BestOfN(2, by="majority", answer=function)),
            key(strategy=Stepwise(2, boundary=Boundary(test=function))),
            key(uncertain_when=agreement(function) < 0.5, n=2),
            key(method_options=MethodOptions(claims=function)),
        }

    assert len(key_of(lambda text: text[:1]) | key_of(lambda text: text[:2])) == 8


def own_strategy(limit):
    @dataclass(frozen=True)
    class Own(Strategy):
        async def __call__(self, run) -> Result:
            result = await run.assess(await run.sample())
            return result if len(result.text) > limit else await run.sample()

    return Own()


def test_classes_of_one_name_share_a_key_only_where_they_do_the_same():
    keys = [key(strategy=own_strategy(limit)) for limit in (1, 2, 2)]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.usefixtures("own_registry")
def test_a_method_of_ones_own_counts_by_its_code():
    def registered(value):
        @evidence_method("brevity", summary="How short it is.", reference="mine")
        async def brevity(context):
            return [value / (1 + len(one.text)) for one in context.candidates]

        return brevity

    keys = []
    for value in (1, 2):
        method = registered(value)
        register_method(method)
        keys.append(key(methods=["brevity"]))
        other = key(methods=["entropy"])
        from uq_llm_integrations.methods import registry

        registry._by_name.pop("brevity")
        registry.METHODS.pop("brevity")
    assert keys[0] != keys[1]
    assert other == key(methods=["entropy"])


def test_waiting_and_callbacks_of_retries_change_no_key():
    plain = Retry(Single(), "entropy > 2")
    assert key(strategy=plain) == key(strategy=Retry(Single(), "entropy > 2", before=print))
    assert key(strategy=plain) != key(strategy=Retry(Single(), "entropy > 2", attempts=4))
    assert key(strategy=RetryErrors(Single())) == key(strategy=RetryErrors(Single(), attempts=9))


def test_what_was_fitted_counts_by_its_numbers():
    from uq_llm_integrations import UncertaintyHead

    weights = [np.ones(3), np.ones(3), np.array([1.0, 1.0, 1.0 + 1e-12])]
    heads = [UncertaintyHead("scripted", 1, weight, 0.0) for weight in weights]
    keys = [key(method_options=MethodOptions(head=head)) for head in heads]
    assert keys[0] == keys[1] != keys[2]


def test_backends_count_by_what_their_answers_depend_on():
    small = {"max_model_len": 64}
    same = [
        VLLMEngineBackend("smollm2", **small),
        VLLMEngineBackend("smollm2", deadline=1.0, max_n=2, hf_token="secret", **small),
        VLLMEngineBackend("smollm2", disable_log_stats=False, **small),
    ]
    other = VLLMEngineBackend("smollm2", max_model_len=128)
    assert len({one.fingerprint for one in same}) == 1
    assert other.fingerprint != same[0].fingerprint
    scorers = [
        HuggingFaceBackend("smollm2", **one) for one in ({}, {"max_n": 2}, {"dtype": "float32"})
    ]
    hybrids = [HybridBackend(same[0], scorer).fingerprint for scorer in scorers]
    assert hybrids[0] == hybrids[1] != hybrids[2]


def test_a_backend_that_says_nothing_of_itself_is_like_no_other():
    class Own(ScriptedBackend):
        _identity, identity_parts = Backend._identity, Backend.identity_parts

    first = Own(["a"])
    seen = {first.fingerprint}
    for _ in range(50):  # an address that is used again
        seen.add(Own(["a"]).fingerprint)
    assert len(seen) == 51 and first.fingerprint in seen


PROGRAM = """
from functools import partial
from uq_llm_integrations import *
from uq_llm_integrations.strategies.conditions import Custom
limit = 3
def named(text, names=frozenset({"x", "y", "z"})):
    return text in {"p", "q", "r"} or len(text) > limit
options = dict(
    strategy=BestOfN(2, by="majority", answer=lambda text: {"a", "b", text}),
    uncertain_when=(score("entropy") > 0.1 + 0.2) & Custom(lambda r: named(r.text), "long"),
    method_options=MethodOptions(claims=partial(named, names={"u", "v", "w"})),
    sampling={"stop_token_ids": [1], "top_k": 3, "extra_args": {"b": ["d", "c"], "a": 1.0}},
)
print(UncertaintyModel(ScriptedBackend(["a"]), **options).identity)
"""


@pytest.mark.subprocess
def test_a_key_is_the_same_in_every_process():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] and "unique" not in outputs[0]
