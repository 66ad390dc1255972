import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams

from uq_llm_integrations import EarlyStop, InvalidRequestError, PromptTooLongError, Request
from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.capabilities import (
    MANAGED_PARAMETERS,
    MASKING_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_early_stop,
    check_request,
    check_sampling,
    most_tokens,
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
        found = check_sampling(sampling)
    except InvalidRequestError as error:
        assert str(error)
        return
    for name in {"temperature", "top_p", "min_p", "max_tokens"} & set(found):
        assert math.isfinite(found[name])


def test_a_request_is_returned_with_values_of_exactly_their_kinds():
    ids = tuple(np.arange(1, 4))
    checked = check_request(Request(ids, sampling={"max_tokens": 2.0, "stop": "END"}), CAPABILITIES)
    assert [type(one) for one in checked.prompt_ids] == [int] * 3
    assert repr(dict(checked.sampling)) == "{'max_tokens': 2, 'stop': ['END']}"


@pytest.mark.parametrize(
    ("sampling", "most"),
    [({}, 10), ({"max_tokens": None}, 10), ({"max_tokens": 11}, 10), ({"max_tokens": 3}, 3)],
)
def test_a_sample_may_have_what_the_prompt_leaves_of_the_context(sampling, most):
    request = Request((1,) * 40, sampling=sampling)
    assert check_request(request, CAPABILITIES).sampling["max_tokens"] == most
    assert most_tokens(request, CAPABILITIES.context_length) == most


def test_where_no_context_is_known_nothing_limits_a_sample():
    unknown = replace(CAPABILITIES, context_length=None)
    assert "max_tokens" not in check_request(Request((1,)), unknown).sampling
    assert most_tokens(Request((1,)), None) is None


def test_the_least_tokens_fit_into_the_most():
    longer = Request((1,) * 40, sampling={"min_tokens": 30})
    assert check_request(longer, CAPABILITIES).sampling == {"min_tokens": 10, "max_tokens": 10}
    with pytest.raises(InvalidRequestError, match=r"min_tokens is 20; .* to max_tokens, 16"):
        check_request(Request((1,), sampling={"min_tokens": 20, "max_tokens": 16}), CAPABILITIES)


@pytest.mark.parametrize(
    ("prompt_ids", "sampling", "message"),
    [
        ((1, 100), {}, "there is no token 100; allowed are 0 to 99"),
        ((1, -1), {}, "a token of the prompt is -1|there is no token -1"),
        ((1, 2.5), {}, "a token of the prompt is 2.5; it must be a whole number"),
        ("text", {}, "the prompt is 'text'; it must be a list of token ids"),
        ((1,), {"stop_token_ids": [100]}, "no token 100 of stop_token_ids"),
        ((1,), {"allowed_token_ids": [3, 100]}, "no token 100 of allowed_token_ids"),
        ((1,), {"logit_bias": {100: 1.0}}, "no token 100 of logit_bias"),
    ],
)
def test_tokens_that_a_vocabulary_does_not_have_are_refused(prompt_ids, sampling, message):
    with pytest.raises(InvalidRequestError, match=message):
        check_request(Request(prompt_ids, sampling=sampling), CAPABILITIES)


@pytest.mark.parametrize("above", [10**400, -(10**400), 1.5, 2], ids=["big", "low", "1.5", "2"])
def test_any_number_is_the_threshold_of_an_early_stop(above):
    check_early_stop(EarlyStop(above), {})
