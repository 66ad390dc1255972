from rich.console import Console

from uq_llm_integrations import ScriptedBackend, UncertaintyModel
from uq_llm_integrations.report.terminal import colour_of, heat_text, render


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
