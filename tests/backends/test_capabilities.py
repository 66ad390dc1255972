import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams

from uq_llm_integrations import InvalidRequestError, PromptTooLongError, Request
from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.capabilities import (
    MANAGED_PARAMETERS,
    MASKING_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_request,
    check_sampling,
)

CAPABILITIES = Capabilities("m", 100, 50, max_top_logprobs=20, max_n=8)


def test_every_sampling_parameter_of_vllm_is_either_passed_on_or_set_by_us():
    internal = {"output_text_buffer_length"}
    fields = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    assert fields - internal == SAMPLING_PARAMETERS | MANAGED_PARAMETERS
    assert MASKING_PARAMETERS <= SAMPLING_PARAMETERS


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"max_token": 1}, "did you mean 'max_tokens'"),
        ({"temprature": None}, "did you mean 'temperature'"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": -1}, "allowed are numbers from 0"),
        ({"top_p": 2}, "from 0.0 to 1.0"),
        ({"max_tokens": 0}, "from 1"),
        ({"stop": ["a", ""]}, "stop string is empty"),
        ({"stop": 3}, "must be a string or a list"),
        ({"n": 2}, "set by the backend"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(sampling, message):
    with pytest.raises(InvalidRequestError, match=message):
        check_sampling(sampling)


@pytest.mark.parametrize(
    "request_",
    [
        Request((1,), n=0),
        Request((1,), n=9),
        Request((1,), top_logprobs=21),
        Request((1,), top_logprobs=-1),
        Request((1,), top_logprobs=-2),
    ],
)
def test_bad_counts_are_refused(request_):
    with pytest.raises(InvalidRequestError, match=r"allowed|max_logprobs"):
        check_request(request_, CAPABILITIES)


def test_a_prompt_needs_room_for_an_answer():
    check_request(Request((1,) * 49), CAPABILITIES)
    with pytest.raises(PromptTooLongError, match="at most 49 fit"):
        check_request(Request((1,) * 50), CAPABILITIES)


@given(st.dictionaries(st.sampled_from(sorted(SAMPLING_PARAMETERS)), st.floats() | st.text()))
def test_any_value_is_accepted_or_gets_the_typed_error(sampling):
    try:
        check_sampling(sampling)
    except InvalidRequestError:
        return
    for name in {"temperature", "top_p", "min_p", "max_tokens"} & set(sampling):
        assert math.isfinite(sampling[name])
