"""The matrix of methods and backends, as a table for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.table import Table

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, suggestion
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.registry import list_methods

ANY = Capabilities("a model", None, None, -1, 1, why_no_activations=None)

BACKENDS: Mapping[str, Capabilities] = {
    "vLLM": ANY,
    "vLLM, parallel": replace(ANY, why_no_activations="each worker holds a part of the model"),
    "Hugging Face": ANY,
    "hybrid": ANY,
}
"""What each kind of backend can have; one that runs knows it of itself."""

COLUMNS = ("method", "alias", "kind", "level", "costs")


def rows(backends: Mapping[str, Capabilities] = BACKENDS) -> list[list[str]]:
    """Return a row of words for each method."""
    return [
        [
            method.name,
            method.alias or "",
            method.category,
            method.level,
            method.cost,
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


def table(backends: Mapping[str, Capabilities] = BACKENDS) -> Table:
    """Return the table for a terminal."""
    shown = Table(*COLUMNS, *backends)
    for row in rows(backends):
        shown.add_row(*row)
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
        raise ConfigurationError(f"unknown backend {name!r}{suggestion(name, BACKENDS)}")
    return {names[key]: BACKENDS[names[key]]}
