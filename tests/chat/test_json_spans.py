"""The places of values in a JSON text."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations.chat.json_spans import NESTING_LIMIT, is_json, json_values

KEYS = st.text(max_size=5) | st.text(alphabet='.[]"0a\\\ud800', max_size=4)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))
OBJECTS = st.dictionaries(KEYS, VALUES) | st.lists(VALUES)


def leaves(value, steps=()):
    """The fields that a value has, by the steps to them, the long way round."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*steps, key))
    else:
        yield steps, value


def steps_of(path: str) -> tuple:
    """Read a path as it is documented: keys behind points, indices and JSON strings in brackets."""
    steps = []
    while path:
        if path[0] == "[":
            step, end = json.JSONDecoder().raw_decode(path, 1)
            assert path[end] == "]"
            path = path[end + 1 :]
        else:
            step = re.match(r"\.?([^.\[\]]+)", path)[1] if path[0] == "." or not steps else None
            path = path.removeprefix(".")[len(step) :]
        steps.append(step)
    return tuple(steps)


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
    found_fields = {steps_of(path): span for path, span in found.fields.items()}
    assert found_fields.keys() == expected.keys() and len(found_fields) == len(found.fields)
    for steps, (start, end) in found_fields.items():
        assert read(f"So: {text}"[start:end], expected[steps]) == expected[steps]


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
    assert {key: one.value for key, one in found.nested.items()} == {"a": {"b": [10, "xy"]}}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('{"a.b": 1, "a": {"b": 2}}', ['["a.b"]', "a.b"]),
        ('{"a[0]": 1, "a": [2], "a.0": 3}', ['["a[0]"]', "a[0]", '["a.0"]']),
        ('{"": 1, "a": {"": 2}}', ['[""]', 'a[""]']),
        ('{"a": [{"b": 1}], "[0]": {"b": 2}, "0": 3}', ["a[0].b", '["[0]"].b', "0"]),
        ('[[1], {"x y": 2}]', ["[0][0]", "[1].x y"]),
        (r'{"a\u002eb": 1, "a\"b": 2, "größe.x": 3}', ['["a.b"]', 'a"b', '["größe.x"]']),
    ],
)
def test_each_field_has_a_path_of_its_own(text, paths):
    (found,) = json_values(text)
    assert list(found.fields) == paths


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"a": 1, "a": 22}', {"a": "22"}),
        ('{"a": {"b": 1}, "a": {"c": 2}}', {"a.c": "2"}),
        ('{"a": {"b": 1}, "a": 3}', {"a": "3"}),
        (r'{"a": 1, "\u0061": [2]}', {"a[0]": "2"}),
    ],
)
def test_of_a_repeated_key_the_last_counts_as_in_the_value(text, fields):
    (found,) = json_values(text)
    assert found.value == json.loads(text)
    assert {path: text[slice(*span)] for path, span in found.fields.items()} == fields


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
