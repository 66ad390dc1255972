"""Files and YAML that anybody may have written: read, or refused by name."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations import Configuration, ConfigurationError, UncertaintyError
from uq_llm_integrations.plain_data import MOST_BYTES, MOST_LEVELS, load_yaml, read_text


class _DatesAsTexts(yaml.SafeLoader):
    """PyYAML's own reading, but for dates."""


_DatesAsTexts.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)

WORDS = "!!int !!set 1:1:1 2020-99-99 .nan generator model n entropy>1 strategy type - &x *x <<:"
SIGNS = st.sampled_from([*WORDS.split(), *"[]{},|#%~?:'\"\n\t\0\ud800 ", "0x", ": ", "- ", "  "])


@fuzz()
@given(st.lists(SIGNS, max_size=25).map("".join))
def test_any_text_is_read_as_yaml_reads_it_or_refused(text):
    try:
        found = load_yaml(text)
    except ConfigurationError as error:
        assert str(error)
        return
    assert repr(found) == repr(yaml.load(text, _DatesAsTexts))


KEYS = st.text(max_size=4)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.sampled_from([*Configuration.model_fields, "sampling", "nonsense"])


@fuzz()
@given(st.dictionaries(OPTIONS, PLAIN, max_size=3))
def test_any_mapping_is_a_configuration_or_refused(plain):
    try:
        Configuration.read({"generator": {"model": "smollm2"}, **plain})
    except UncertaintyError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(
            f"b{i}: &b{i} [*{p}, *{p}]\n"
            for i, p in enumerate(["a", *(f"b{j}" for j in range(40))])
        ),
        "a: &a {x: 1}\n"
        + "".join(
            f"b{i}: &b{i} {{<<: [*{p}, *{p}]}}\n"
            for i, p in enumerate(["a", *(f"b{j}" for j in range(40))])
        ),
        "a: &a [*a]",
        "[" * 50_000,
        "- " * 50_000,
        "{a: " * 20_000,
        "a: " + "[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1),
        "n: 1" + ":1" * 50_000,
        "n: " + "9" * 5_000,
        "n: !!int x",
        "n: !!set {a, b}",
        "n: !!binary aGk=",
        "n: !!python/name:os.system",
        " " * 300_000,
        "n: 1\nn: 2",
    ],
    ids=[
        "aliases",
        "merges",
        "cycle",
        "brackets",
        "lists",
        "mappings",
        "depth",
        "sexagesimal",
        "digits",
        "type",
        "set",
        "bytes",
        "python",
        "length",
        "twice",
    ],
)
def test_what_would_unfold_or_take_long_is_refused(text):
    with pytest.raises(ConfigurationError):
        load_yaml(text)


@pytest.mark.parametrize("date", ["2020-01-31", "2020-99-99", "2001-12-14t21:59:43.10-05:00"])
def test_a_date_is_the_text_that_is_written(date):
    assert load_yaml(f"model: {date}") == {"model": date}


def test_what_others_do_to_the_loaders_of_yaml_changes_nothing(monkeypatch):
    for tag in ("int", "map", "str", "timestamp"):
        monkeypatch.setitem(
            yaml.SafeLoader.yaml_constructors, f"tag:yaml.org,2002:{tag}", lambda *_: "theirs"
        )
    assert load_yaml("n: 3\nwords: [a, 2020-01-31]") == {"n": 3, "words": ["a", "2020-01-31"]}


def test_only_a_file_of_a_limited_size_is_read(tmp_path):
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for path, why in (("/dev/zero", "no file"), (large, "allowed are"), ("\ud800", "no file")):
        with pytest.raises(ConfigurationError, match=why):
            read_text(path)


def test_a_mapping_that_contains_itself_is_refused():
    plain = {"generator": {"model": "smollm2"}}
    plain["chat_template_kwargs"] = plain
    with pytest.raises(ConfigurationError, match="contains itself"):
        Configuration.read(plain)
