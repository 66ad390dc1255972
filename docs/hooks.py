"""What is made when the documentation is built: tables of the code, and code blocks.

`<!-- methods -->`, `<!-- options -->` and `<!-- method options -->` in a page are replaced.
Examples in docstrings become code blocks; one marked `python engine` says that it needs a model.
"""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from griffe import Attribute, Class, Extension, GriffeLoader, Object
from pydantic import BaseModel

from uq_llm_integrations import METHODS, Method, MethodOptions, Settings
from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.methods.comparability import varies_with

FORMULAS = Path(__file__).with_name("formulas.yml")

_ALL = Capabilities("a backend", None, None, -1, 1, why_no_activations=None)
_NO_ACTIVATIONS = dataclasses.replace(_ALL, why_no_activations="it shows none")
_INEXACT = dataclasses.replace(_ALL, why_inexact="it sees the top k only")

_FAMILIES = {
    "logprob": "Log-probabilities and entropies",
    "sampling": "Samples that are compared",
    "hidden state": "Hidden states",
    "attention": "Attention",
    "prompting": "Questions to the model",
    "calibrated": "Calibrated scores",
}
_UNITS = {math.inf: "∞", -math.inf: "-∞"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page."""
    needs = {"engine": "a model", "server": "a server", "exact": "a server with the plugin"}
    for word, needed in needs.items():
        markdown = markdown.replace(f"```python {word}\n", f'```python title="needs {needed}"\n')
    for marker, table in TABLES.items():
        if marker in markdown:
            markdown = markdown.replace(marker, table())
    return markdown


class Examples(Extension):
    """Puts the examples of docstrings, which are indented below `Example:`, into code blocks."""

    _EXAMPLE = re.compile(r"^Example:\n((?: {4}.*\n?|\n)+)", re.M)

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of whatever has one."""
        if obj.docstring:
            obj.docstring.value = self._EXAMPLE.sub(self._block, obj.docstring.value + "\n")

    @staticmethod
    def _block(found: re.Match[str]) -> str:
        code = textwrap.dedent(found[1]).strip()
        kind = "pycon" if code.startswith(">>>") else "python"
        return f"**Example**\n\n```{kind}\n{code}\n```\n\n"


def methods_tables() -> str:
    """Return a section with a table for each family of methods.

    Raises KeyError for a method without a formula.
    """
    formulas = yaml.safe_load(FORMULAS.read_text())
    sections = []
    for category, title in _FAMILIES.items():
        rows = [
            [
                "<br>".join(f"`{name}`" for name in _names(method)),
                method.level,
                f"`{formulas[method.name]}`",
                _range(method.range),
                method.summary.replace("|", "\\|"),
                f"[source]({method.reference})",
                _needs(method),
                method.cost,
                ", ".join(varies_with(method)) or "nothing",
            ]
            for method in METHODS.values()
            if method.category == category
        ]
        head = ["names", "level", "formula", "range", "what it is", "paper", "needs", "costs"]
        head.append("varies with")
        sections.append(f"### {title}\n\n{_table(head, rows)}")
    return "\n\n".join(sections)


def _names(method: Method) -> list[str]:
    return [*([method.alias] if method.alias else []), method.name, *method.other_names]


def _range(ends: tuple[float, float]) -> str:
    low, high = (_UNITS.get(end, f"{end:g}") for end in ends)
    return f"{low} to {high}"


def _needs(method: Method) -> str:
    """Return what a method lacks where a backend or the options lack something."""
    needs = []
    if method.missing(_NO_ACTIVATIONS, MethodOptions()) != method.missing(_ALL, MethodOptions()):
        needs.append("activations")
    if method.missing(_INEXACT, MethodOptions()) != method.missing(_ALL, MethodOptions()):
        needs.append("exact statistics")
    if fitted := method.missing(_ALL, MethodOptions()):
        needs.append(fitted.split(":")[0])
    if method.judged_by:
        needs.append(f"a judge of {method.judged_by}")
    return ", ".join(needs) or "nothing"


def options_table() -> str:
    """Return the options of `Settings` with their types and defaults."""
    described = _attribute_docstrings(Settings)
    rows = [
        [
            f"`{name}`",
            f"`{_type(field.annotation)}`",
            f"`{_shown(field.get_default(call_default_factory=True))}`",
            described.get(name, ""),
        ]
        for name, field in Settings.model_fields.items()
    ]
    return _table(["option", "type", "default", "what it is"], rows)


def method_options_table() -> str:
    """Return the fields of `MethodOptions`."""
    described = _attribute_docstrings(MethodOptions)
    rows = [
        [f"`{field.name}`", described.get(field.name, "")]
        for field in dataclasses.fields(MethodOptions)
    ]
    return _table(["field", "what it is"], rows)


def _attribute_docstrings(kind: type[BaseModel] | type[MethodOptions]) -> Mapping[str, str]:
    """Return the docstrings below the fields of a class, read from its source."""
    package = GriffeLoader().load(kind.__module__)
    found = package[kind.__name__]
    assert isinstance(found, Class)
    return {
        name: re.sub(r"\s+", " ", member.docstring.value)
        for name, member in found.members.items()
        if isinstance(member, Attribute) and member.docstring
    }


def _type(annotation: object) -> str:
    """Return a type as it is written in source, without what pydantic keeps with it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if annotation is type(None):
        return "None"
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else _type(part) for part in parts)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _shown(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "<!-- methods -->": methods_tables,
    "<!-- options -->": options_table,
    "<!-- method options -->": method_options_table,
}
