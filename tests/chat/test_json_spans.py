"""The places of values in a JSON text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations.chat.json_spans import NESTING_LIMIT, is_json, json_values

KEYS = st.text(min_size=1, max_size=5).filter(lambda key: not set(key) & set(".[]"))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))
OBJECTS = st.dictionaries(KEYS, VALUES) | st.lists(VALUES)


def leaves(value, path=""):
    """The fields that a value has, by their paths, the long way round."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


def read(text: str, value):
    """What stands at the position of a field, which leaves out the quotes of a string."""
    return json.loads(f'"{text}"' if isinstance(value, str) and value else text)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_what_is_cut_out_of_a_text_is_the_value(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    (found,) = json_values(f"So: {text} and so on")
    assert found.value == value
    assert f"So: {text}"[slice(*found.span)] == text
    expected = dict(leaves(value))
    assert found.fields.keys() == expected.keys()
    for path, (start, end) in found.fields.items():
        assert read(f"So: {text}"[start:end], expected[path]) == expected[path]


@fuzz()
@given(st.text(alphabet='{}[]",:1 a\\', max_size=40))
def test_any_text_can_be_looked_through(text):
    ends = [0]
    for found in json_values(text):
        assert json.loads(text[slice(*found.span)]) == found.value
        assert found.span[0] >= ends[-1]
        ends.append(found.span[1])


def test_objects_within_text_that_only_looks_like_some():
    text = 'I {think} that {"a": [1, {"b": "x"}]} or [2] will do {"c": '
    assert [found.value for found in json_values(text)] == [{"a": [1, {"b": "x"}]}, [2]]


def test_nested_values_are_returned_with_their_paths():
    (found,) = json_values('{"a": {"b": [10, "xy"]}, "c": true}')
    assert list(found.fields) == ["a.b[0]", "a.b[1]", "c"]
    assert [one.value for one in found.nested] == [{"b": [10, "xy"]}]


@pytest.mark.parametrize("text", ["", "[", '{"a"', '{"a": }', "[1,]", '{"a": 1,}', "[1 2]"])
def test_what_is_no_json_is_passed(text):
    assert list(json_values(text)) == []


@pytest.mark.parametrize("unit", ["[", "{", '["', '{"a":', "[1,", " ", '["\\x', '"\\"['])
def test_long_texts_that_are_no_json_are_looked_through_once(unit):
    text = unit * (100_000 // len(unit))
    assert list(json_values(text)) == []
    assert not is_json(text)


@pytest.mark.parametrize(("depth", "is_read"), [(NESTING_LIMIT, True), (NESTING_LIMIT + 1, False)])
def test_nesting_has_a_limit(depth, is_read):
    text = "[" * depth + "]" * depth
    assert is_json(text) is is_read
    assert (next(json_values(text)).span == (0, 2 * depth)) is is_read


def test_an_object_is_found_behind_a_quote_that_has_no_end():
    text = '{"she said: {"name": "add", "arguments": {"a": 1}}'
    assert next(json_values(text)).value == {"name": "add", "arguments": {"a": 1}}
