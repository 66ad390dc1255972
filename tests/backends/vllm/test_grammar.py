"""Grammars of objects in which white space cannot go on for ever."""

import json

import pytest
from vllm.sampling_params import StructuredOutputsParams

from uq_llm_integrations.backends.vllm.grammar import sparing, structured_outputs

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


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
    schema = {"type": "array", "uniqueItems": True}
    assert structured_outputs({"json": schema}).json == schema


def test_the_arguments_of_tool_calls_are_spared_too():
    call = {"begin": "<call>", "content": {"type": "json_schema", "json_schema": SCHEMA}}
    given = StructuredOutputsParams(
        structural_tag=json.dumps({"type": "structural_tag", "format": {"tags": [call]}})
    )
    (tag,) = json.loads(sparing(given).structural_tag)["format"]["tags"]
    assert tag["content"]["max_whitespace_cnt"] == 1
    assert sparing(StructuredOutputsParams(choice=["a"])).choice == ["a"]
