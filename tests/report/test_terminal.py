import json

import pytest
from rich.console import Console

from uq_llm_integrations import Claim, Score, ScriptedBackend, UncertaintyModel
from uq_llm_integrations.report.terminal import (
    colour_of,
    heat_text,
    json_text,
    render,
    score_table,
)


def test_each_token_has_the_colour_of_its_entropy():
    result = UncertaintyModel(ScriptedBackend(["ab"], probability=0.9)).generate("?")
    text = heat_text(result.candidate, ["a", "b"])
    entropy = float(result.candidate.trace.entropy[0])
    assert text.plain == "ab"
    assert {str(span.style) for span in text.spans} == {f"not dim {colour_of(entropy)}"}


def test_surer_tokens_have_other_colours():
    assert len({colour_of(entropy) for entropy in (0.1, 0.5, 1.0, 2.0, 5.0)}) == 5


def test_the_report_shows_answer_scores_and_cost():
    result = UncertaintyModel(ScriptedBackend(["Paris"]), methods="perplexity").generate("?")
    console = Console(record=True, width=100)
    console.print(render(result, [list("Paris")]))
    shown = console.export_text()
    for wanted in ("Paris", "perplexity", "1.1111", "5 generated"):
        assert wanted in shown


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        (Score("method", lower=0.5, upper=1.25), "0.5000 to 1.2500"),
        (Score("method", claims=(Claim("Paris", (0,), 0.3),)), "'Paris' 0.30"),
        (Score("method", tokens=(0.1, 0.25)), "0.10 0.25"),
        (Score("method", reason="it is far away"), "unknown  it is far away"),
    ],
)
def test_a_score_without_a_value_shows_what_is_known(score, shown):
    console = Console(record=True, width=100)
    console.print(score_table([("method", score)]))
    assert shown in console.export_text()


def test_no_name_of_a_method_is_cut_in_a_narrow_terminal():
    console = Console(record=True, width=30)
    console.print(score_table([("semantic_entropy_empirical", Score("m", reason="far " * 20))]))
    assert "…" not in console.export_text()


def test_what_a_model_says_is_neither_markup_nor_a_command_to_the_terminal():
    text = "[red]a[/] [/b] \x1b[31mb\x9b2J \u202ec"
    result = UncertaintyModel(ScriptedBackend([text])).generate("?")
    table = score_table([("token_ccp", Score("token_ccp", reason="[bold]why[/] \x1b[1m"))])
    console = Console(record=True, width=200, force_terminal=True, color_system=None)
    console.print(render(result, [list(text)]))
    console.print(table)
    shown = console.export_text(styles=False)
    assert "[red]a[/] [/b] ␛[31mb�2J �c" in shown and "[bold]why[/] ␛[1m" in shown


def test_json_has_no_command_to_the_terminal_and_reads_as_it_was():
    data = {"text": "東京 \x1b[31m \x7f \x9b2J \u202ec \u2066"}
    written = json_text(data)
    assert "東京" in written and json.loads(written) == data
    assert not [one for one in written if not one.isprintable() and one != "\n"]
