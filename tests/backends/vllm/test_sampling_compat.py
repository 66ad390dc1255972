"""Whatever a caller passes: it is refused, or the engine's own decoder reads it. No engine runs."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from tests.fuzzing import fuzz
from uq_llm_integrations import InvalidRequestError, Request
from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.capabilities import SAMPLING_PARAMETERS, check_request
from uq_llm_integrations.backends.vllm.process import translated_errors
from uq_llm_integrations.backends.vllm.requests import check_engine_limits, generation_params
from uq_llm_integrations.backends.vllm.sampling_compat import check_readable
from uq_llm_integrations.backends.vllm.worker.protocol import REQUEST_KEY, STOP_KEY

CAPABILITIES = Capabilities("m", 1000, 500, max_top_logprobs=20, max_n=8)
ENCODER, DECODER = MsgpackEncoder(), MsgpackDecoder(EngineCoreRequest)
FIELDS = sorted(set(SamplingParams.__struct_fields__) & SAMPLING_PARAMETERS)

NUMBERS = (
    st.integers()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64), 10**400])
    | st.floats()
    | st.sampled_from([1.0, 2.0, 1e2, 1e39])
    | st.fractions()
    | st.decimals()
    | st.booleans()
    | st.sampled_from([np.int64(3), np.float32(2), np.bool_(True), np.float64("nan")])
)
LEAVES = (
    st.none()
    | NUMBERS
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(["\ud800", "a\udfff", "json", object(), {1, 2}, 1j, int, np.arange(3)])
)
NAMES = st.sampled_from(
    ["json", "choice", "regex", "min_count", "max_pattern_size", "2", REQUEST_KEY]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(NAMES | st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=5,
)


def sent(sampling) -> SamplingParams:
    """The parameters of the third sample of a request."""
    with translated_errors():
        request = check_request(Request((1, 2), sampling=sampling), CAPABILITIES)
        return generation_params(request, 2, observed_as="x", fallback_k=20, whole=True)


def received(params: SamplingParams) -> SamplingParams:
    """What the engine's process makes of them, by its own decoder."""
    request = EngineCoreRequest("id", [1, 2], None, params, None, 0.0, None, None, None)
    return DECODER.decode(ENCODER.encode(request)).sampling_params


@fuzz()
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
def test_any_value_is_refused_by_name_or_read_by_the_engine(sampling):
    try:
        params = sent(sampling)
    except InvalidRequestError as error:
        assert str(error)
        return
    assert received(params).max_tokens == params.max_tokens


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [2.0, 1, True, "a", ["a"], [1.0], {"2": 100}, 1.5, -1, {}])
def test_each_field_is_refused_or_read(name, value):
    try:
        params = sent({name: value})
    except InvalidRequestError as error:
        assert name in str(error)
    else:
        received(params)


def test_a_parameter_that_vllm_gets_later_is_checked_by_its_own_type():
    check_readable({"logprobs": 3, "output_text_buffer_length": 2})
    with pytest.raises(InvalidRequestError, match=r"logprobs is 3\.5, .* Expected `int \| null`"):
        check_readable({"logprobs": 3.5})
    with pytest.raises(InvalidRequestError, match="no such parameter"):
        check_readable({"of_a_later_version": 1})


def test_an_object_that_is_not_of_vllm_is_refused():
    @dataclass
    class Own:
        json: int = 3

    with pytest.raises(InvalidRequestError, match=r"structured_outputs is .*Own"):
        sent({"structured_outputs": Own()})


@pytest.mark.parametrize("key", [REQUEST_KEY, STOP_KEY])
def test_what_the_probe_reads_cannot_be_passed(key):
    with pytest.raises(InvalidRequestError, match=key):
        sent({"extra_args": {key: "x"}})


def test_repetitions_are_described_by_a_mapping():
    given = {"max_pattern_size": 4, "min_count": 2}
    assert received(sent({"repetition_detection": given})).repetition_detection.min_count == 2
    with pytest.raises(InvalidRequestError, match="min_count must be >= 2"):
        sent({"repetition_detection": {"max_pattern_size": 4}})


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"allowed_token_ids": [1] * 1025}, "allowed_token_ids has 1025 tokens; allowed are 1024"),
        ({"stop_token_ids": [1] * 121, "min_tokens": 1}, "allowed are 120"),
        ({"bad_words": ["word"] * 150}, "bad_words has 1350 tokens"),
        ({"stop_token_ids": [1] * 121}, None),
        ({"logit_bias": {1: 1.0}}, None),
    ],
)
def test_what_would_end_the_worker_of_the_v2_runner_is_refused(sampling, message):
    config = SimpleNamespace(
        use_v2_model_runner=True,
        device_config=SimpleNamespace(device_type="cuda"),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=True),
    )
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: list(text))
    llm = SimpleNamespace(vllm_config=config, get_tokenizer=lambda: tokenizer)
    request = Request((1,), sampling=sampling)
    if message is None:
        check_engine_limits(request, llm)
        return
    with pytest.raises(InvalidRequestError, match=message):
        check_engine_limits(request, llm)
