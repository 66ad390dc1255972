"""The matrix of methods and backends, as a table for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.server.backend import WHY_NO_ACTIVATIONS
from uq_llm_integrations.errors import ConfigurationError, described, suggestion
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.comparability import varies_with
from uq_llm_integrations.methods.registry import list_methods
from uq_llm_integrations.records import JsonObject

ANY = Capabilities("a model", None, None, -1, 1, why_no_activations=None)

BACKENDS: Mapping[str, Capabilities] = {
    "vLLM": ANY,
    "vLLM, parallel": replace(ANY, why_no_activations="each worker holds a part of the model"),
    "vLLM server": replace(ANY, why_no_activations=WHY_NO_ACTIVATIONS),
    "Hugging Face": ANY,
    "hybrid": ANY,
}
"""What each kind of backend can have; one that runs knows it of itself."""

COLUMNS = ("method", "alias", "kind", "level", "costs", "varies with")


def rows(backends: Mapping[str, Capabilities] = BACKENDS) -> list[list[str]]:
    """Return a row of words for each method."""
    return [
        [
            method.name,
            method.alias or "",
            method.category,
            method.level,
            method.cost,
            ", ".join(varies_with(method)) or "nothing",
            *(_word(method, capabilities) for capabilities in backends.values()),
        ]
        for method in list_methods()
    ]


def _word(method: Method, capabilities: Capabilities) -> str:
    if method.missing(capabilities) is None:
        return "yes"
    if capabilities.why_no_activations and method.inspection:
        return "no"
    return "fitted"


def markdown(backends: Mapping[str, Capabilities] = BACKENDS) -> str:
    """Return the table in Markdown."""
    head = [*COLUMNS, *backends]
    lines = [head, ["---"] * len(head), *rows(backends)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_data(backends: Mapping[str, Capabilities] = BACKENDS) -> list[JsonObject]:
    """Return the table as plain data, with what each method lacks where it cannot be had as is."""
    return [
        {
            "name": method.name,
            "alias": method.alias,
            "other_names": list(method.other_names),
            "kind": method.category,
            "level": method.level,
            "costs": method.cost,
            "summary": method.summary,
            "range": [end if math.isfinite(end) else None for end in method.range],
            "varies_with": list(varies_with(method)),
            "backends": {name: _word(method, one) for name, one in backends.items()},
            "lacks": {name: why for name, one in backends.items() if (why := method.missing(one))},
        }
        for method in list_methods()
    ]


def print_table(console: Console, backends: Mapping[str, Capabilities] = BACKENDS) -> None:
    """Print the table so that no name is cut.

    A method is a line, as long as it takes; in a terminal that is too narrow, it is some lines.
    """
    lines = _lines(backends)
    unbounded = console.options.update(max_width=_WIDEST)
    width = Measurement.get(console, unbounded, lines).maximum
    if console.is_terminal and width > console.width:
        console.print(_blocks(backends))
    else:
        console.width = max(width, console.width)
        console.print(lines)


_WIDEST = 10_000


def _lines(backends: Mapping[str, Capabilities]) -> Table:
    shown = Table(*COLUMNS, *backends)
    for row in rows(backends):
        shown.add_row(*row)
    return shown


def _blocks(backends: Mapping[str, Capabilities]) -> Table:
    shown = Table(show_lines=True)
    shown.add_column("method", no_wrap=True)
    shown.add_column("what it is, and where it works")
    for name, alias, kind, level, cost, varies, *words in rows(backends):
        where = "; ".join(f"{one}: {word}" for one, word in zip(backends, words, strict=True))
        what = f"{kind}, {level}; costs {cost}; varies with {varies}"
        shown.add_row(f"{name}\n{alias}".strip(), f"{what}\n{where}")
    return shown


def lacking(backends: Mapping[str, Capabilities]) -> dict[str, str]:
    """Return what each method lacks on one backend; nothing where there are several to choose."""
    if len(backends) != 1:
        return {}
    (capabilities,) = backends.values()
    found = {one.name: one.missing(capabilities) for one in list_methods()}
    return {name: why for name, why in found.items() if why}


def chosen(name: str | None) -> Mapping[str, Capabilities]:
    """Return the one backend of that name, all without one; raise ConfigurationError otherwise."""
    if name is None:
        return BACKENDS
    names = {backend.lower().replace(" ", ""): backend for backend in BACKENDS}
    key = name.lower().replace(" ", "").replace("_", "")
    if key not in names:
        raise ConfigurationError(f"unknown backend {described(name)}{suggestion(name, BACKENDS)}")
    return {names[key]: BACKENDS[names[key]]}
