"""Answers as HTML: what is seen is said, and what a model says runs nothing."""

import pickle
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.llms import ChatMessage

import uq_llm_integrations.llama_index
from uq_llm_integrations import (
    ConfigurationError,
    InvalidRequestError,
    ScriptedBackend,
    ScriptedLine,
    UncertaintyModel,
    heat_map,
)
from uq_llm_integrations.report.heat_map import LEVELS, STYLES, level_of, summary_of
from uq_llm_integrations.report.token_values import TokenValues
from uq_llm_integrations.report.visible_text import safe_html, visible

VALUES = TokenValues(("Par", "is"), logprob=(-2.0, -0.01), entropy=(1.7, None))

TAGS = {"div", "p", "span", "small", "table", "caption", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"role", "aria-label", "style", "title", "class", "scope"}


class Reader(HTMLParser):
    """The tags, attributes and texts of a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


def test_each_token_has_the_look_and_the_words_of_its_level():
    html = heat_map(VALUES).html
    assert f'<span style="{STYLES[3]}" title="entropy 1.70 nats, unsure">Par</span>' in html
    assert "<span>is</span>" in html, "its entropy is unknown"
    by_surprisal = heat_map(VALUES, by="logprob").html
    assert 'title="surprisal 2.00 nats, unsure">Par' in by_surprisal
    assert 'title="surprisal 0.01 nats, sure">is' in by_surprisal


def test_a_sentence_says_what_colours_say():
    assert summary_of(("a", "b"), (0.1, 0.2), "entropy").startswith("0 of 2 tokens are unsure")
    assert summary_of(("a",), (None,), "entropy") == "The entropy of the tokens is unknown."
    assert "1 of 2 tokens is unsure" in heat_map(VALUES).html
    assert all(word in heat_map(VALUES).html for word in LEVELS)


def test_an_upper_bound_is_called_one():
    values = TokenValues(("a",), entropy=(1.0,), is_bound=True)
    assert "highest possible entropy 1.00 nats" in heat_map(values).html


def luminance(colour: str) -> float:
    """By WCAG 2, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_levels_grow_darker_and_can_be_read():
    pairs = [re.findall(r"#[0-9a-f]{6}", one) for one in STYLES[1:]]
    shades = [luminance(background) for background, _ in pairs]
    assert shades == sorted(shades, reverse=True)
    for shade, text in zip(shades, (luminance(text) for _, text in pairs), strict=True):
        light, dark = max(shade, text), min(shade, text)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG's AA"
    assert [level_of(one) for one in (0, 0.25, 0.5, 1, 2, 4)] == [0, 0, 1, 2, 3, 4]


def test_a_notebook_shows_a_result_by_itself():
    with UncertaintyModel(ScriptedBackend(["a<b>"]), methods=["entropy"]) as model:
        result = model.generate("?")
        html = result._repr_html_()
    assert re.search(r'title="entropy 0.\d\d nats, in doubt">&lt;<', html)
    assert '<th scope="row">entropy</th>' in html and "accepted" in html
    assert heat_map(result)._repr_html_().count("title=") == 0, "the model is closed"
    assert "a&lt;b&gt;" in heat_map(result).html


def test_a_result_that_has_come_from_elsewhere_shows_its_text():
    result = UncertaintyModel(ScriptedBackend(["Paris"])).generate("?")
    assert "Paris" in pickle.loads(pickle.dumps(result))._repr_html_()


def test_an_abstention_shows_both_texts():
    options = {"uncertain_when": "entropy > 0", "on_high_uncertainty": "abstain"}
    with UncertaintyModel(ScriptedBackend(["Paris"]), **options) as model:
        html = model.generate("?")._repr_html_()
    assert "abstained, uncertain" in html and "I am not sure enough" in html and ">P<" in html


def test_metadata_is_shown_with_and_without_tokens():
    metadata = {"scores": {"entropy": 0.5, "p_true": None}, "reasons": {"p_true": "no <reason>"}}
    html = heat_map(metadata).html
    assert "0.5000" in html and "no &lt;reason&gt;" in html
    metadata["by_token"] = {"token": ["Par"], "logprob": [-2.0], "entropy_upper": [1.0]}
    assert "highest possible entropy 1.00 nats" in heat_map({"uncertainty": metadata}).html


def test_answers_of_langchain_are_shown():
    chat = uq_llm_integrations.ChatVLLMUncertainty(
        backend=ScriptedBackend(["<i>"]), token_scores=True
    )
    assert 'nats, in doubt">&lt;<' in heat_map(chat.invoke("?")).html
    plain = uq_llm_integrations.ChatVLLMUncertainty(backend=ScriptedBackend(["<i>"]))
    assert "&lt;i&gt;" in heat_map(plain.invoke("?")).html


def test_answers_of_llama_index_are_shown():
    llm = uq_llm_integrations.llama_index.VLLMUncertaintyLLM(
        backend=ScriptedBackend(["<i>"]), token_scores=True
    )
    for answer in (llm.complete("?"), llm.chat([ChatMessage(content="?")])):
        assert 'nats, in doubt">&lt;<' in heat_map(answer).html


def test_responses_of_a_query_engine_are_shown():
    metadata = {"uncertainty": {"final": {"scores": {"entropy": 0.5}}, "calls": []}}
    html = heat_map(SimpleNamespace(response="Paris", metadata=metadata)).html
    assert "Paris" in html and "0.5000" in html


@pytest.mark.parametrize("answer", ["text", {}, None, Exception(), {"uncertainty": 3}])
def test_what_has_no_scores_is_refused(answer):
    with pytest.raises(InvalidRequestError, match="has no scores"):
        heat_map(answer)
    with pytest.raises(ConfigurationError, match="by is 'colour'"):
        heat_map(answer, by="colour")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00\x1b[31mb", "a␀␛[31mb"),
        ("a\u202eb\u2066", "a⟨U+202E⟩b⟨U+2066⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("\U000e0041\ud800\x7f\x85", "⟨U+E0041⟩⟨U+D800⟩␡⟨U+0085⟩"),
        ("lines\n\tstay", "lines\n\tstay"),
        ("می\u200cخواهم 👩\u200d🚀 東京", "می\u200cخواهم 👩\u200d🚀 東京"),
    ],
)
def test_hidden_characters_are_shown(text, shown):
    assert visible(text) == shown


@given(st.text(), st.sampled_from(["entropy", "logprob"]))
def test_no_text_becomes_anything_but_text(text, by):
    hostile = f"</p></div><script>alert(1)</script>{text}\" onload='x"
    values = TokenValues((hostile, text), logprob=(-9.0, -0.1), entropy=(9.0, 0.1))
    page = Reader(heat_map(values, by).html)
    assert page.tags <= TAGS and page.attributes <= ATTRIBUTES
    assert visible(hostile).strip() in "".join(page.texts)
    metadata = Reader(heat_map({"scores": {text: 0.5}, "text": hostile}).html)
    assert metadata.tags <= TAGS and metadata.attributes <= ATTRIBUTES
    assert "<" not in safe_html(text)


def test_tokens_without_values_are_text_and_rows_must_fit():
    assert "unknown" in heat_map(TokenValues(("a", "b"))).html
    with pytest.raises(ConfigurationError, match="one entry a token"):
        TokenValues(("a",), entropy=(1.0, 2.0))


def test_the_extension_shows_answers_of_frameworks_in_notebooks():
    shells = pytest.importorskip("IPython.core.interactiveshell")
    from langchain_core.messages import AIMessage

    shell = shells.InteractiveShell()
    shell.run_line_magic("load_ext", "uq_llm_integrations")
    metadata = {"uncertainty": {"scores": {"entropy": 0.5}}}
    scored = AIMessage("<b>Paris", response_metadata=metadata)
    data, _ = shell.display_formatter.format(scored)
    assert "&lt;b&gt;Paris" in data["text/html"] and "0.5000" in data["text/html"]
    data, _ = shell.display_formatter.format(AIMessage("Paris"))
    assert "text/html" not in data
    shell.run_line_magic("unload_ext", "uq_llm_integrations")
    data, _ = shell.display_formatter.format(scored)
    assert "text/html" not in data


def test_a_low_probability_is_not_sure():
    with UncertaintyModel(ScriptedBackend([ScriptedLine("a", 0.01)])) as model:
        assert "very unsure" in heat_map(model.generate("?")).html
