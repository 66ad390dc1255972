"""Schemas of pydantic's classes: the grammar allows right values, and no wrong ones."""

import threading
import warnings
from collections.abc import Callable

import llguidance
import pytest
import xgrammar
from pydantic import BaseModel, ConfigDict, RootModel, create_model
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import serialize_guidance_grammar
from vllm.v1.structured_output.request import get_structured_output_key

from tests.chat.schema_kinds import KINDS, Node
from uq_llm_integrations import errors
from uq_llm_integrations.backends.vllm.requests import structured_outputs
from uq_llm_integrations.chat.schemas import class_schema, is_recursive, object_tool

END = 256
BYTES = xgrammar.TokenizerInfo(
    [bytes([one]) for one in range(END)] + [b"<end>"],
    vocab_type=xgrammar.VocabType.RAW,
    vocab_size=END + 1,
    stop_token_ids=[END],
)
COMPILER = xgrammar.GrammarCompiler(BYTES, max_threads=1)
TOKENIZER = llguidance.LLTokenizer("byte")


def allows(params: StructuredOutputsParams, text: str) -> bool:
    """Whether the grammar that vLLM compiles allows a whole text."""
    kind, spec = get_structured_output_key(params)
    if params.structural_tag:
        matcher = xgrammar.GrammarMatcher(COMPILER.compile_structural_tag(spec))
        return bool(matcher.accept_string(text) and matcher.accept_token(END))
    grammar = serialize_guidance_grammar(kind, spec)
    other = llguidance.LLMatcher(TOKENIZER, grammar, log_level=0)
    return bool(other.consume_tokens(TOKENIZER.tokenize_str(text)) and other.is_accepting())


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_of_any_kind_allows_right_values_and_no_wrong_ones(kind):
    cls, right, wrong = KINDS[kind]
    params = structured_outputs({"json": class_schema(cls)})
    for text in right:
        assert allows(params, text)
        cls.model_validate_json(text)
    assert [text for text in wrong if allows(params, text)] == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Callable[[int], int], "Bad.v"), (type(threading.Lock()), "Bad.v"), (type[int], "Bad.v")],
)
def test_what_no_json_can_be_is_refused_by_the_name_of_the_field(kind, name):
    config = ConfigDict(arbitrary_types_allowed=True)
    cls = create_model("Bad", __config__=config, fine=(int, ...), v=(kind, ...))
    with pytest.raises(errors.ConfigurationError, match=name):
        class_schema(cls)


@pytest.mark.parametrize(
    "part", [{"type": "array", "uniqueItems": True}, {"type": "string", "pattern": "("}]
)
def test_what_no_grammar_serves_is_refused_by_the_name_of_the_part(part):
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": part}}}}
    with pytest.raises(errors.InvalidRequestError, match=r"because of a\.b"):
        structured_outputs({"json": schema})


def test_a_schema_may_have_formats_that_no_grammar_knows():
    schema = {"type": "object", "properties": {"format": {"type": "string", "format": "odd"}}}
    assert allows(structured_outputs({"json": schema}), '{"format": "x"}')


def test_a_recursive_class_keeps_its_recursion():
    schema = class_schema(Node)
    assert is_recursive(schema) and not is_recursive(class_schema(KINDS["list_model"][0]))
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert object_tool("Node", schema)["function"]["parameters"]["$defs"] == schema["$defs"]


def test_arguments_are_an_object():
    with pytest.raises(errors.ConfigurationError, match="'array'"):
        object_tool("Rows", class_schema(RootModel[list[int]]))
    either = class_schema(RootModel[KINDS["nested"][0].__annotations__["v"] | Node])
    assert object_tool("Box[int]", either)["function"]["name"] == "Box_int_"


def test_a_default_that_is_no_json_is_no_reason_to_warn():
    class WithDefault(BaseModel):
        v: bytes = b"\xff"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "required" not in class_schema(WithDefault)
