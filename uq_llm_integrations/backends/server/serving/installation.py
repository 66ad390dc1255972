"""How hooks are put in place of vLLM's functions, once all have been verified."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from uq_llm_integrations.backends.reaches import VLLM_READ_IN, Reach
from uq_llm_integrations.errors import EngineStartError

Hook = Callable[..., Any]
"""What is called in place of a function of vLLM's, which is its first argument."""


class Place(Enum):
    """The processes in which hooks are put in place."""

    ENGINE = "engine"
    API_SERVER = "API server"


_HOOKS = "uq_llm_integrations.backends.server.serving.hooks"

_reaches: list[Reach] = []
_hooks: dict[Place, list[tuple[str, Hook]]] = {one: [] for one in Place}


def hook(place: Place, target: str, *needed: str) -> Callable[[Hook], Hook]:
    """Mark a hook: what it stands in for, and what else it needs of vLLM.

    Targets are those of `Reach`.
    """

    def mark(function: Hook) -> Hook:
        _hooks[place].append((target.partition("(")[0], function))
        _reaches.append(Reach(function.__name__, (target, *needed), "vllm", VLLM_READ_IN))
        return function

    return mark


def install(place: Place) -> None:
    """Put the hooks of a process in place, once all have been verified.

    Raises EngineStartError, which names the hook and vLLM's version, where one has moved.
    """
    for one in all_hooks():
        one.verify()
    for hooks in _hooks.values():
        for target, function in hooks:
            _owner(target, function)
    for target, function in _hooks[place]:
        _replace(target, function)


def all_hooks() -> list[Reach]:
    """Return every hook with what it needs."""
    importlib.import_module(_HOOKS)
    return list(_reaches)


def _owner(target: str, function: Hook) -> tuple[Any, str]:
    """Return what has a function, and the function's name; it must be there by itself."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    try:
        owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
        inspect.getattr_static(owner, name)
    except (ImportError, AttributeError) as error:
        from vllm import __version__

        raise EngineStartError(
            f"vllm {__version__} is not as the hook {function.__name__} needs it: {target} has "
            f"moved ({error}); it was read in {', '.join(VLLM_READ_IN)}"
        ) from error
    return owner, name


def _replace(target: str, function: Hook) -> None:
    owner, name = _owner(target, function)
    found = inspect.getattr_static(owner, name)
    is_wrapped = isinstance(found, staticmethod | classmethod)
    original = found.__func__ if is_wrapped else found
    if getattr(original, "uq_llm_hook", None):
        return

    @functools.wraps(original)
    def replaced(*arguments: Any, **options: Any) -> Any:
        return function(original, *arguments, **options)

    vars(replaced)["uq_llm_hook"] = function.__name__
    setattr(owner, name, type(found)(replaced) if is_wrapped else replaced)
