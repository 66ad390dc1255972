"""How hooks take the place of functions, and what is said where one of these has moved."""

import sys
from types import ModuleType

import pytest

from uq_llm_integrations import EngineStartError
from uq_llm_integrations.backends.server.serving import installation


class Engine:
    """What stands in for a class of vLLM's."""

    def step(self, number):
        return number + 1

    @staticmethod
    def ready():
        return "ready"


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("engine_of_a_test")
    made.Engine = type("Engine", (Engine,), dict(vars(Engine)))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def doubled(original, *arguments):
    """A hook: what it stands in for is its first argument."""
    found = original(*arguments)
    return found * 2


def test_a_hook_is_called_with_what_it_stands_in_for(module):
    installation._replace(f"{module.__name__}:Engine.step", doubled)
    installation._replace(f"{module.__name__}:Engine.ready", doubled)
    assert module.Engine().step(2) == 6
    assert module.Engine.ready() == "readyready"


def test_a_hook_is_put_in_place_once(module):
    for _ in range(2):
        installation._replace(f"{module.__name__}:Engine.step", doubled)
    assert module.Engine().step(2) == 6


@pytest.mark.parametrize("target", ["engine_of_a_test:Engine.moved", "no_such_module:Engine.step"])
def test_a_function_that_has_moved_is_named_with_the_hook_and_the_version(module, target):
    with pytest.raises(EngineStartError, match=r"vllm \d.* the hook doubled needs it") as raised:
        installation._replace(target, doubled)
    assert target in str(raised.value)
