"""Charts as SVG that stands in a page of strict rules."""

from __future__ import annotations

import io
import re
from typing import Any

from uq_llm_integrations.evaluation.charts import Chart
from uq_llm_integrations.optional_packages import optional_module

SIZE = (5.6, 3.8)
"""Inches of a chart."""


def svg_of(chart: Chart) -> str:
    """Return a chart as an `svg` element for HTML.

    It has no style, no script and no metadata, its identifiers begin with the chart's name, and
    what is black has the colour of the text around it.
    """
    figure = figure_of(SIZE)
    axes = figure.subplots()
    chart.draw(axes)
    settings = {"svg.fonttype": "path", "svg.hashsalt": chart.name}
    with optional_module("matplotlib", "evaluation").rc_context(settings), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return _plain(file.getvalue(), chart)


def figure_of(size: tuple[float, float]) -> Any:
    """Return a figure of matplotlib without a window, of so many inches."""
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
