"""An evaluation as one picture: charts, all methods with their cost, and the worst mistakes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.charts import Chart
from uq_llm_integrations.evaluation.drawing import SIZE, figure_of
from uq_llm_integrations.evaluation.summaries import COLUMNS, MethodSummary
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.report.heat_map import SHADES, level_of, level_words
from uq_llm_integrations.report.token_values import TokenValues
from uq_llm_integrations.report.visible_text import visible

_LINE = 0.22
"""Inches of a line of text."""
_MOST_CHARACTERS = 120
"""How many characters of an answer are shown."""
_TEXT = {"fontsize": 8, "parse_math": False}


@dataclass(frozen=True)
class Picture:
    """What is drawn; the charts two in a row."""

    title: str
    charts: Sequence[Chart]
    methods: Sequence[MethodSummary]
    mistakes: Sequence[tuple[str, TokenValues]]
    """Wrong answers, each below a line of words."""

    def save(self, path: str | Path) -> None:
        """Write a PNG; raises ConfigurationError where it cannot be written."""
        figure = self._drawn()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box
                figure.savefig(path, format="png", dpi=120)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error}") from error

    def _drawn(self) -> Any:
        rows = (len(self.charts) + 1) // 2
        below = [_LINE * (len(self.methods) + 3), _LINE * (2 * len(self.mistakes) + 3)]
        heights = [SIZE[1]] * rows + below
        figure = figure_of((2 * SIZE[0], sum(heights)))
        figure.suptitle(self.title, parse_math=False)
        grid = figure.add_gridspec(rows + 2, 2, height_ratios=heights)
        for number, chart in enumerate(self.charts):
            axes = figure.add_subplot(grid[number // 2, number % 2])
            axes.set_title(chart.title, fontsize=10)
            chart.draw(axes)
        _tabulate(_blank(figure.add_subplot(grid[rows, :]), COST_TITLE), self.methods)
        _list(_blank(figure.add_subplot(grid[rows + 1, :]), MISTAKES_TITLE), self.mistakes)
        return figure


COST_TITLE = "Methods and their cost beside the answer"
MISTAKES_TITLE = "The worst confident mistakes"


def _blank(axes: Any, title: str) -> Any:
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, loc="left")
    return axes


def _tabulate(axes: Any, methods: Sequence[MethodSummary]) -> None:
    table = axes.table([one.cells for one in methods], colLabels=COLUMNS, cellLoc="left",
                       edges="horizontal", bbox=[0, 0, 1, 1])  # fmt: skip  # one table
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(range(len(COLUMNS)))


def _list(axes: Any, mistakes: Sequence[tuple[str, TokenValues]]) -> None:
    """Write the legend and the mistakes from the top."""
    boxes = optional_module("matplotlib.offsetbox", "evaluation")
    legend = [(words, level) for level, words in enumerate(level_words())]
    lines = [_line(boxes, [("uncertainty in nats: ", 0), *legend])]
    for asked, tokens in mistakes:
        lines += [_line(boxes, [(asked, 0)]), _line(boxes, _levels(tokens))]
    packed = boxes.VPacker(children=lines, pad=0, sep=3)
    axes.add_artist(boxes.AnchoredOffsetbox("upper left", child=packed, frameon=False, pad=0))


def _levels(tokens: TokenValues) -> list[tuple[str, int]]:
    """Return the first texts of an answer, in one line, with their levels."""
    numbers = tokens.entropy or tokens.surprisal or (None,) * len(tokens.texts)
    found, left = [], _MOST_CHARACTERS
    for text, number in zip(tokens.texts, numbers, strict=True):
        shown = visible(text).replace("\n", " ")[:left]
        found.append((shown, 0 if number is None else level_of(number)))
        left -= len(shown)
    return [*found, ("" if left else " ...", 0)]


def _line(boxes: Any, texts: Sequence[tuple[str, int]]) -> Any:
    parts = [_area(boxes, text, level) for text, level in texts if text]
    return boxes.HPacker(children=parts, pad=1, sep=1)


def _area(boxes: Any, text: str, level: int) -> Any:
    """Return a text in the colours of its level."""
    ground, colour = SHADES[level] or ("none", "black")
    box = {"facecolor": ground, "edgecolor": "none", "pad": 1}
    return boxes.TextArea(text, textprops={**_TEXT, "color": colour, "bbox": box})
