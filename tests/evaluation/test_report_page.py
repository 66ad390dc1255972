"""The report of an evaluation: one page that runs and asks for nothing, for all who read it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.evaluation.browser import CHROMIUM, browser
from tests.evaluation.graded_items import evaluation_of, saved
from uq_llm_integrations import ConfigurationError, Usage
from uq_llm_integrations.evaluation import write_report
from uq_llm_integrations.report.heat_map import SHADES

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

HOSTILE = "</p><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>\u202e"

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


def many(text="Paris", count=200):
    rng = np.random.default_rng(0)
    entropy = rng.exponential(size=count)
    scores = {
        "entropy": entropy.tolist(),
        "p_true": [None, *rng.normal(size=count - 1).tolist()],
    }
    right = (rng.random(count) < 1 / (1 + np.exp(2 * (entropy - 1)))).tolist()
    costs = {"entropy": Usage(), "p_true": Usage(prompt_tokens=40, seconds=0.2, forward_passes=1)}
    return evaluation_of(scores, right, costs, text=text)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"

    def written(evaluation=None, **options):
        write_report(many() if evaluation is None else evaluation, path, **options)
        return path.read_text()

    written.path = path
    return written


class Reader(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]


def test_it_says_what_each_method_is_worth_and_costs(page):
    html = page()
    text = " ".join(Reader(html).texts)
    assert "Take entropy" in text and "p_true" in text
    assert re.search(r'<th scope="row">p_true</th>\s*<td>0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)', html)
    assert '<td class="number">40</td><td class="number">1.0</td><td class="number">0.20</td>' in (
        html
    )


def test_each_chart_has_words_for_what_is_seen(page):
    labels = [one for one in Reader(page()).values("aria-label") if "of 2 tokens" not in one]
    assert any(
        re.match(r"Risk and coverage\. Of all answers \d+% are wrong", one) for one in labels
    )
    assert any("(ECE, 10 bins)" in one for one in labels)
    assert any("The median of entropy is" in one for one in labels)
    assert any("entropy has the highest AUROC" in one for one in labels)


def test_the_worst_mistakes_are_those_that_the_method_is_most_certain_of(page):
    evaluation = evaluation_of(
        {"entropy": [0.3, 0.1, 0.2, 0.4] * 10}, [False, True, False, True] * 10
    )
    asked = re.findall(r'<h3 id="mistake-\d+">(.*?)</h3>', page(evaluation))
    assert asked[:2] == ["Question 2?", "Question 6?"] and len(asked) == 10


def test_it_asks_for_nothing_and_allows_no_program(page):
    read = Reader(page())
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(read.tags)
    assert all(one.startswith("#") for one in read.values("href", "xlink:href", "src"))
    assert not read.values("style")
    (policy,) = [one for one in read.values("content") if "default-src" in one]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    ids = read.values("id")
    assert len(ids) == len(set(ids)), "also among the charts"


def test_what_a_model_or_a_question_says_is_text(page):
    read = Reader(page(many(HOSTILE)))
    assert not {"script", "img"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" not in page(many(HOSTILE))


def test_what_cannot_be_shown_is_said(page, tmp_path):
    html = page(evaluation_of({"entropy": [0.1, 0.2]}, [True, True]))
    assert "Nothing can be recommended: all 2 answers are right." in " ".join(Reader(html).texts)
    assert "<figure" not in html
    with pytest.raises(ConfigurationError, match="there are no charts"):
        page(evaluation_of({"entropy": [0.1, 0.2]}, [True, True]), png=tmp_path / "report.png")
    assert "There are none." in page(evaluation_of({"entropy": [0.1]}, [None]))
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_report(many(), tmp_path / "no" / "report.html")


def test_the_picture_shows_the_methods_and_the_tokens_of_mistakes_too(page, tmp_path):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    def picture(evaluation):
        page(evaluation, png=tmp_path / "report.png")
        return imread(tmp_path / "report.png")[..., :3]

    seen = picture(many("東京 $x^2"))
    unsure, _ = SHADES[3]
    assert np.isclose(seen, to_rgb(unsure), atol=1e-3).all(-1).sum() > 1000
    wrong = [number % 2 == 0 for number in range(40)]
    one, two = ({name: [*range(40)] for name in names} for names in ("a", "ab"))
    more = len(picture(evaluation_of(two, wrong))) - len(picture(evaluation_of(one, wrong)))
    assert more > 10, "a line of the table"


def test_the_command_writes_both(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from uq_llm_integrations.cli import app

    path = saved(many(), tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(path), "--png", "report.png"])
    assert done.exit_code == 0 and done.stdout == "report.html\nreport.png\n"
    assert (tmp_path / "report.html").is_file() and (tmp_path / "report.png").is_file()


@needs_browser
@pytest.mark.subprocess
def test_a_browser_shows_it_without_an_error_or_an_outside_request(page, tmp_path):
    page(many(HOSTILE))
    with browser(tmp_path / "profile") as shown:
        shown.open(page.path)
        assert shown.problems == []
        assert shown.requests == [page.path.as_uri()]
        assert shown.evaluate("document.styleSheets.length") == 1
        assert shown.evaluate("getComputedStyle(document.querySelector('.uq3')).color") == (
            "rgb(255, 255, 255)"
        )


@needs_browser
@pytest.mark.subprocess
def test_charts_can_be_read_in_the_dark(page, tmp_path):
    page()
    with browser(tmp_path / "profile") as shown:
        dark = {"name": "prefers-color-scheme", "value": "dark"}
        shown.call("Emulation.setEmulatedMedia", features=[dark])
        shown.open(page.path)
        text = shown.evaluate("getComputedStyle(document.body).color")
        assert text == "rgb(255, 255, 255)"
        letters = "getComputedStyle(document.querySelector('svg use')).fill"
        assert shown.evaluate(letters) == text


@needs_browser
@pytest.mark.subprocess
def test_keyboard_and_screen_reader_find_their_way(page, tmp_path):
    page()
    with browser(tmp_path / "profile") as shown:
        shown.open(page.path)
        focus = [shown.tab() for _ in range(6)]
        assert focus[0] == "A Skip to the content"
        assert focus[1:5] == [
            "A Recommendation", "A Charts", "A Methods and their cost",
            "A The worst confident mistakes",
        ]  # fmt: skip  # one list
        assert focus[5] == "DIV methods"
        figures = shown.names("figure")
        assert len(figures) == 4 + 10 and all(figures)
        assert shown.names("navigation") == ["Contents"] and len(shown.names("main")) == 1
        assert "Methods and their cost" in shown.names("region")
        assert all(shown.names(role) for role in ("heading", "table", "columnheader", "rowheader"))


@needs_browser
@pytest.mark.subprocess
def test_the_browser_says_what_is_wrong_with_another_page(tmp_path):
    path = tmp_path / "other.html"
    path.write_text("<img src='http://127.0.0.1:9/x'><script>console.error('oh')</script>")
    with browser(tmp_path / "profile") as shown:
        shown.open(path)
        assert "http://127.0.0.1:9/x" in shown.requests
        assert any("oh" in one for one in shown.problems)
