"""Charts as pictures: SVG that stands in a page of strict rules, and PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.charts import Chart
from uq_llm_integrations.optional_packages import optional_module

_SIZE = (5.6, 3.8)
"""Inches of a chart."""
_LINE = 0.2
"""Inches of a line of text."""


def svg_of(chart: Chart) -> str:
    """Return a chart as an `svg` element for HTML.

    It has no style, no script and no metadata, its identifiers begin with the chart's name, and
    what is black has the colour of the text around it.
    """
    figure = _figure(_SIZE)
    axes = figure.subplots()
    chart.draw(axes)
    settings = {"svg.fonttype": "path", "svg.hashsalt": chart.name}
    with optional_module("matplotlib", "evaluation").rc_context(settings), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return _plain(file.getvalue(), chart)


def save_png(charts: Sequence[Chart], title: str, lines: Sequence[str], path: str | Path) -> None:
    """Write charts, and lines of text below them, as one picture.

    Raises ConfigurationError where it cannot be written.
    """
    rows = (len(charts) + 1) // 2
    height = _SIZE[1] * rows + _LINE * (len(lines) + 1)
    figure = _figure((2 * _SIZE[0], height))
    figure.suptitle(title, parse_math=False)
    grid = figure.add_gridspec(rows + 1, 2, height_ratios=[_SIZE[1]] * rows + [_LINE * len(lines)])
    for number, chart in enumerate(charts):
        axes = figure.add_subplot(grid[number // 2, number % 2])
        axes.set_title(chart.title, fontsize=10)
        chart.draw(axes)
    below = figure.add_subplot(grid[rows, :])
    below.set_axis_off()
    below.text(0, 1, "\n".join(lines), va="top", fontsize=8, parse_math=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box
            figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error


def _figure(size: tuple[float, float]) -> Any:
    figures = optional_module("matplotlib.figure", "evaluation")
    return figures.Figure(figsize=size, layout="constrained")


_PROPERTY = re.compile(r"\s*([a-z-]+)\s*:\s*([^;\"]+?)\s*(?:;|$)")


def _plain(svg: str, chart: Chart) -> str:
    """Return the element alone, by rules under which a page allows no styles but its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.S)
    svg = re.sub(r'style="([^"]*)"', lambda found: _attributes(found[1]), svg)
    svg = re.sub(r'\bid="', f'id="{chart.name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{chart.name}-", svg)
    svg = svg.replace("#000000", "currentColor")
    hidden = 'aria-hidden="true" focusable="false"'  # its words stand beside it
    return svg.replace("<svg", f'<svg {hidden} fill="currentColor"', 1)


def _attributes(style: str) -> str:
    """Return the declarations of a style as attributes, which SVG has for all that is drawn."""
    return " ".join(f'{name}="{value}"' for name, value in _PROPERTY.findall(style))
