"""What is exactly a value of a sampling parameter becomes one; anything else is refused by name."""

import json
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest

from uq_llm_integrations import InvalidRequestError, ScriptedBackend, Settings, UncertaintyModel
from uq_llm_integrations.backends.sampling_values import KINDS, check_sampling, stop_strings


class Size(IntEnum):
    SMALL = 3


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("max_tokens", 2.0, 2),
        ("max_tokens", 1e2, 100),
        ("max_tokens", np.float32(7), 7),
        ("max_tokens", Fraction(8, 2), 4),
        ("max_tokens", Size.SMALL, 3),
        ("min_tokens", np.int64(1), 1),
        ("seed", 1.0, 1),
        ("seed", -(2**63), -(2**63)),
        ("top_k", np.uint8(5), 5),
        ("stream_interval", 2.0, 2),
        ("temperature", 1, 1.0),
        ("temperature", np.float16(0.5), 0.5),
        ("presence_penalty", Fraction(1, 2), 0.5),
        ("ignore_eos", 1, True),
        ("skip_special_tokens", np.bool_(False), False),
        ("watermarking", 0.0, False),
        ("stop", "END", ["END"]),
        ("bad_words", ("a", "b"), ["a", "b"]),
        ("stop_token_ids", [1.0, np.int32(2)], [1, 2]),
        ("allowed_token_ids", np.array([3, 4]), [3, 4]),
        ("stop_token_ids", range(2), [0, 1]),
        ("logit_bias", {"2": 100, 3: np.float64(0.5)}, {2: 100.0, 3: 0.5}),
        ("extra_args", {"a": (1, np.float32(0.5)), "b": None}, {"a": [1, 0.5], "b": None}),
        ("structured_outputs", {"choice": ("a", "b")}, {"choice": ["a", "b"]}),
        ("repetition_detection", {"min_count": 2}, {"min_count": 2}),
        ("max_tokens", None, None),
    ],
)
def test_what_is_exactly_a_value_becomes_it(name, given, value):
    found = check_sampling({name: given})[name]
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_tokens", 2.5, "whole number from 1"),
        ("max_tokens", True, "whole number"),
        ("max_tokens", "3", "whole number"),
        ("max_tokens", float("nan"), "whole number"),
        ("max_tokens", Decimal(3), "whole number"),
        ("seed", 2**64, "whole numbers from -2\\*\\*63 to 2\\*\\*63 - 1"),
        pytest.param("seed", 10**5000, "whole numbers", id="seed-of-5000-digits"),
        ("top_k", -2, "whole numbers from -1"),
        ("temperature", float("inf"), "numbers from 0.0"),
        ("temperature", True, "a number"),
        ("temperature", 10**400, "numbers from 0.0"),
        ("repetition_penalty", 1e39, "numbers from 0.0"),
        ("ignore_eos", 2, "True or False"),
        ("ignore_eos", "yes", "True or False"),
        ("stop", ["a", 3], "a string or a list of strings"),
        ("stop", {"a"}, "a string or a list of strings"),
        ("bad_words", [""], "empty"),
        ("stop_token_ids", [1.5], "whole number from 0"),
        ("stop_token_ids", [True], "whole number from 0"),
        ("stop_token_ids", [2**40], "whole numbers from 0"),
        ("stop_token_ids", "12", "a list of token ids"),
        ("stop_token_ids", 5, "a list of token ids"),
        ("logit_bias", {"a": 1}, "whole number from 0"),
        ("logit_bias", {"2": 1, 2: 2}, "each token id once"),
        ("logit_bias", {2: float("nan")}, "numbers"),
        ("logit_bias", [2], "map token ids to numbers"),
        ("extra_args", {"a": {1, 2}}, "extra_args.a is .*plain data"),
        ("extra_args", {"a": [object()]}, "extra_args.a\\[0\\] is .*plain data"),
        ("extra_args", {"a": 2**63}, "extra_args.a"),
        ("extra_args", {1: 2}, "a string"),
        ("extra_args", [1], "map names to plain data"),
        ("structured_outputs", "json", "a mapping"),
        ("structured_outputs", {"json": {"a": object()}}, "structured_outputs.json.a"),
        ("repetition_detection", 3, "a mapping"),
    ],
)
def test_anything_else_is_refused_with_its_name_and_what_is_allowed(name, value, allowed):
    with pytest.raises(InvalidRequestError, match=allowed) as caught:
        check_sampling({name: value})
    assert name in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_no_parameter_takes_any_object(name):
    with pytest.raises(InvalidRequestError, match=name):
        check_sampling({name: object()})


def test_data_that_hold_themselves_are_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(InvalidRequestError, match="extra_args has no end"):
        check_sampling({"extra_args": {"a": endless}})


def test_settings_hold_the_values_that_are_sent():
    settings = Settings(max_tokens=1e2, temperature=1, seed=np.int64(3), ignore_eos=1, stop="END")
    assert json.loads(json.dumps(settings.all_sampling())) == {
        "seed": 3,
        "ignore_eos": True,
        "temperature": 1.0,
        "max_tokens": 100,
        "stop": ["END"],
    }
    assert type(settings.sampling["seed"]) is int and settings.sampling["ignore_eos"] is True


def test_a_number_that_yaml_reads_as_a_text_is_one():
    assert Settings(max_tokens="1e2", temperature="1e-1").all_sampling() == {
        "max_tokens": 100,
        "temperature": 0.1,
    }


@pytest.mark.parametrize("options", [{"max_tokens": 2.5}, {"seed": 0.5}, {"n": True}, {"n": 1.5}])
def test_a_call_with_a_wrong_value_is_refused_before_the_backend(options):
    backend = ScriptedBackend(["Paris"])
    with pytest.raises(InvalidRequestError, match=next(iter(options))):
        UncertaintyModel(backend).generate("?", **options)
    assert not backend.requests


@pytest.mark.parametrize(
    ("stop", "strings"),
    [(None, ()), ("END", ("END",)), (["a", "b"], ("a", "b")), ((), ())],
)
def test_a_string_is_one_stop_string(stop, strings):
    assert stop_strings(stop) == strings
