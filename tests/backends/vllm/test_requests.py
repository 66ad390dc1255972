"""From requests to vLLM's parameters, and grammars in which white space cannot go on for ever."""

import json

import pytest
from vllm.sampling_params import StructuredOutputsParams

from uq_llm_integrations import InvalidRequestError, Request
from uq_llm_integrations.backends.vllm.requests import (
    check_seed,
    generation_params,
    structured_outputs,
    why_not_observed,
    with_little_space,
)
from uq_llm_integrations.backends.vllm.worker.protocol import REQUEST_KEY

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


def test_samples_have_seeds_and_ids_of_their_own():
    request = Request((1,), n=2, sampling={"seed": 5, "extra_args": {"mine": 1}})
    params = generation_params(request, 1, observed_as="x", fallback_k=20, whole=True)
    assert params.seed == 6
    assert params.n == 1
    assert params.extra_args == {"mine": 1, REQUEST_KEY: "x"}
    assert request.sampling["extra_args"] == {"mine": 1}


def test_tokens_that_the_probe_keeps_are_not_requested_of_the_engine():
    names = {"observed_as": "x", "keeps_tokens": True, "fallback_k": 20, "whole": True}
    assert generation_params(Request((1,)), 0, **names).logprobs is None
    assert generation_params(Request((1,), top_logprobs=5), 0, **names).logprobs == 5


def test_the_top_k_stand_in_for_the_probe():
    params = generation_params(Request((1,)), 0, observed_as=None, fallback_k=20, whole=True)
    assert params.logprobs == 20


def test_penalties_reach_the_v2_probe_only():
    request = Request((1,), sampling={"presence_penalty": 0.5})
    assert why_not_observed(request, use_v2_model_runner=False) is None
    assert "presence_penalty" in why_not_observed(request, use_v2_model_runner=True)


def test_a_seed_that_could_kill_the_engine_is_refused():
    from types import SimpleNamespace as Space

    config = Space(
        device_config=Space(device_type="cpu"),
        scheduler_config=Space(enable_chunked_prefill=True),
    )
    with pytest.raises(InvalidRequestError, match="chunked prefill"):
        check_seed(Request((1,), sampling={"seed": 1}), config)
    check_seed(Request((1,)), config)


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"json": SCHEMA}, SCHEMA),
        ({"json": json.dumps(SCHEMA)}, SCHEMA),
        ({"json_object": True}, {"type": "object"}),
    ],
)
def test_a_schema_allows_one_space_at_a_time(given, schema):
    tag = json.loads(structured_outputs(given).structural_tag)
    assert tag["format"] == {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}


def test_what_is_no_object_stays_as_it_is():
    assert structured_outputs({"choice": ["a", "b"]}).choice == ["a", "b"]


def test_a_schema_that_xgrammar_does_not_serve_is_left_to_vllm():
    schema = {"type": "integer", "multipleOf": 5}
    assert structured_outputs({"json": schema}).json == schema


def test_the_arguments_of_tool_calls_are_spared_too():
    call = {"begin": "<call>", "content": {"type": "json_schema", "json_schema": SCHEMA}}
    given = StructuredOutputsParams(
        structural_tag=json.dumps({"type": "structural_tag", "format": {"tags": [call]}})
    )
    (tag,) = json.loads(with_little_space(given).structural_tag)["format"]["tags"]
    assert tag["content"]["max_whitespace_cnt"] == 1
    assert with_little_space(StructuredOutputsParams(choice=["a"])).choice == ["a"]
