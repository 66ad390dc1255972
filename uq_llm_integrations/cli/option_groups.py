"""Options that several commands share: a dataclass of them is one parameter of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from uq_llm_integrations.settings import Settings


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of its dataclasses, and of `Settings` for its `**`.

    The latter are read as YAML, by whoever takes them.

    Example:
        @app.command()
        @with_groups
        def ask(question: str, chosen: ModelOptions, **settings: str | None) -> None: ...
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
    added = [option for one in own.values() for option in _options(one)]

    @wraps(command)
    def run(**given: Any) -> None:
        found = {name: _group(given, kind) for name, kind in groups.items()}
        command(**given, **found)

    run.__signature__ = inspect.Signature(added)  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {one.name: one.annotation for one in added}
    return run


def _options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """Yield what a parameter of a command is on the command line."""
    if is_dataclass(kind := parameter.annotation):
        hints = get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            yield _option(one.name, hints[one.name], _default(one))
    elif parameter.kind is parameter.VAR_KEYWORD:
        for name in Settings.model_fields:
            help_text = f"{name} of Settings, as YAML."
            yield _option(name, Annotated[str | None, typer.Option(help=help_text)], None)
    else:
        yield parameter.replace(kind=parameter.KEYWORD_ONLY)


def _option(name: str, kind: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _default(one: Field[Any]) -> object:
    return inspect.Parameter.empty if one.default is MISSING else one.default


def _group(given: dict[str, Any], kind: Any) -> object:
    """Take what belongs to a dataclass out of what was given, and return the record of it."""
    return kind(**{one.name: given.pop(one.name) for one in fields(kind)})
