"""Reaches into the inside of other packages: where each one goes and what it was read in.

What a package does not document may move with any release. Each place here that depends on such a
thing is one function, marked with `reach`. A contract test verifies every reach against what is
installed, without starting an engine; and before an engine is started on a version that nobody has
read, the same check says what has moved.
"""

import importlib
import inspect
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from uq_llm_integrations.errors import EngineStartError

VLLM_READ_IN = ("0.32.0", "0.33.0")

F = TypeVar("F", bound=Callable[..., object])

_HOMES = (
    "uq_llm_integrations.backends.server.vllm_program",
    "uq_llm_integrations.backends.vision_guard",
    "uq_llm_integrations.backends.vllm.client_compat",
    "uq_llm_integrations.backends.vllm.grammar_compat",
    "uq_llm_integrations.backends.vllm.sampling_compat",
    "uq_llm_integrations.backends.vllm.worker.compat",
)

_TARGET = re.compile(r"(?P<module>[\w.]+):(?P<path>[\w.]+)(?:\((?P<parameters>[\w, ]*)\))?")


@dataclass(frozen=True)
class Reach:
    """One dependency on something that a package does not document."""

    name: str
    targets: tuple[str, ...]
    """'module:Class.attribute', or 'module:function(parameter, parameter)' for what is called."""
    package: str
    read_in: tuple[str, ...]
    """The versions of the package in which the targets were read."""

    @property
    def is_read(self) -> bool:
        """Whether the installed version is one of those that were read."""
        installed = _installed(self.package)
        return any(f"{installed}.".startswith(f"{version}.") for version in self.read_in)

    def verify(self) -> None:
        """Raise EngineStartError, which names the reach, where a target is not as it was read."""
        for target in self.targets:
            try:
                _verify(target)
            except (ImportError, AttributeError, TypeError) as error:
                raise EngineStartError(
                    f"{self.package} {_installed(self.package)} is not as {self.name} needs it: "
                    f"{target} has moved ({error}); it was read in {', '.join(self.read_in)}"
                ) from error


_REACHES: dict[str, Reach] = {}


def reach(
    *targets: str, package: str = "vllm", read_in: tuple[str, ...] = VLLM_READ_IN
) -> Callable[[F], F]:
    """Mark the one function that depends on some targets; calling it costs nothing more.

    Example:
        @reach("vllm.v1.engine.async_llm:AsyncLLM.collective_rpc(method, args)")
        async def call_workers(llm, method, args): ...
    """

    def mark(function: F) -> F:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        _REACHES[name] = Reach(name, targets, package, read_in)
        return function

    return mark


def all_reaches() -> dict[str, Reach]:
    """Return every reach by its name."""
    for home in _HOMES:
        importlib.import_module(home)
    return dict(_REACHES)


def check_unread_version(package: str = "vllm") -> None:
    """Raise EngineStartError where a version that was not read has moved a target."""
    for one in all_reaches().values():
        if one.package == package and not one.is_read:
            one.verify()


def _installed(package: str) -> str:
    if package == "python":
        return platform.python_version()
    return str(importlib.import_module(package).__version__).partition("+")[0]


def _verify(target: str) -> None:
    parts = _TARGET.fullmatch(target)
    if parts is None:
        raise TypeError(f"{target!r} is not 'module:path' or 'module:path(parameters)'")
    found: object = importlib.import_module(parts["module"])
    *path, last = parts["path"].split(".")
    for name in path:
        found = getattr(found, name)
    if not hasattr(found, last):
        if isinstance(found, type) and last in _instance_attributes(found):
            return
        raise AttributeError(f"it has no {last}")
    if parts["parameters"] is not None:
        _verify_parameters(getattr(found, last), parts["parameters"].split(", "))


def _verify_parameters(function: Callable[..., object], names: list[str]) -> None:
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    missing = [name for name in names if name and name not in parameters]
    if missing and not takes_any:
        raise TypeError(f"it takes no {', '.join(missing)}")


def _instance_attributes(kind: type) -> Iterator[str]:
    """Yield the names that a class declares or its methods use: instances have no others."""
    for base in kind.__mro__:
        yield from inspect.get_annotations(base)
        for member in vars(base).values():
            code = getattr(getattr(member, "__wrapped__", member), "__code__", None)
            yield from getattr(code, "co_names", ())
