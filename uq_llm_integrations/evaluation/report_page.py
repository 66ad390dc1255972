"""An evaluation as one page of HTML that asks for nothing: no script, no font, no request."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.charts import Chart, charts_of
from uq_llm_integrations.evaluation.drawing import svg_of
from uq_llm_integrations.evaluation.items import Evaluation, Item
from uq_llm_integrations.evaluation.picture import Picture
from uq_llm_integrations.evaluation.recommending import recommend
from uq_llm_integrations.evaluation.summaries import summaries
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.report.heat_map import STYLES, tokens_html
from uq_llm_integrations.report.token_values import TokenValues
from uq_llm_integrations.report.visible_text import safe_html, visible

MOST_MISTAKES = 10
"""How many of the worst mistakes are shown."""


def write_report(
    evaluation: Evaluation, path: str | Path, *, png: str | Path | None = None
) -> None:
    """Write a page that shows an evaluation, and with `png` the same as a picture.

    It has the recommendation, risk-coverage curves, a reliability diagram, histograms, all methods
    with their cost, and the wrong answers of which the recommended method is most certain, token by
    token. Its content security policy allows no script and no request. Raises ConfigurationError
    where it cannot be written, or where there are no charts for a picture, and
    MissingDependencyError without the extra `evaluation`.

    Example:
        write_report(Evaluation.load("evaluation.jsonl"), "report.html", png="report.png")
    """
    choice, rows = recommend(evaluation), summaries(evaluation)
    charts = charts_of(evaluation, rows, choice.method)
    title = f"{evaluation.setup.origin.model}: {len(evaluation.items)} questions"
    if png is not None and not charts:
        raise ConfigurationError(f"there are no charts for {png}: {choice.words}")
    mistakes = worst_mistakes(evaluation, choice.method)
    shown = {"evaluation": evaluation, "choice": choice, "rows": rows, "mistakes": mistakes}
    try:
        Path(path).write_text(_page(title, charts, shown), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error
    if png is not None:
        answers = [(one.line, one.values) for one in mistakes]
        Picture(visible(title), charts, rows, answers).save(png)


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, and how certain the method was of it."""

    item: Item
    score: float

    @property
    def tokens(self) -> Any:
        """The answer as a heat map, or its text."""
        values = self.item.tokens
        if values is None:
            return self.item.text
        return _markup(tokens_html(values, classes=True))

    @property
    def values(self) -> TokenValues:
        """The tokens of the answer; where they were not kept, its text as one."""
        return self.item.tokens or TokenValues((self.item.text or "",))

    @property
    def line(self) -> str:
        """Score, question and right answers in a line."""
        question = self.item.question
        texts = (question.question, " or ".join(question.answers))
        asked, right = (shorten(visible(one), 60, placeholder=" ...") for one in texts)
        return f"{self.score:.4f}  {asked}  (right: {right})"


def worst_mistakes(
    evaluation: Evaluation, method: str | None, most: int = MOST_MISTAKES
) -> tuple[Mistake, ...]:
    """Return the wrong answers that a method gives the lowest scores, the lowest first."""
    wrong = [
        Mistake(one, score)
        for one in evaluation.graded
        if not one.grade.correct
        and method is not None
        and (score := one.scores.get(method)) is not None
    ]
    return tuple(sorted(wrong, key=lambda one: one.score)[:most])


def _page(title: str, charts: Sequence[Chart], shown: Mapping[str, object]) -> str:
    style = _style()
    pictures = [(one, _markup(svg_of(one))) for one in charts]
    page: str = _template().render(
        title=title, policy=_policy(style), style=_markup(style), charts=pictures, **shown
    )
    return page


def _template() -> Any:
    jinja2 = optional_module("jinja2", "evaluation")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    return environment.from_string(_resource("report_page.html.jinja"))


def _shown(text: object) -> Any:
    """Return what anybody may have written, as text; markup stays markup."""
    return text if hasattr(text, "__html__") else _markup(safe_html(str(text)))


def _markup(html: str) -> Any:
    return optional_module("markupsafe", "evaluation").Markup(html)


def _style() -> str:
    levels = "".join(f".uq{level} {{{style}}}\n" for level, style in enumerate(STYLES) if style)
    return _resource("report_page.css") + levels


def _policy(style: str) -> str:
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
