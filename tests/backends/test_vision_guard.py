import importlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from uq_llm_integrations.backends import vision_guard

CHECKS = "transformers.utils.import_utils"


@pytest.fixture(autouse=True)
def answers_afterwards():
    """transformers' answers are those for this process again once a test has ended."""
    yield
    vision_guard.hide_mismatched_builds(from_vllm=True)


def believed() -> list[bool]:
    checks = importlib.import_module(CHECKS)
    return [getattr(checks, f"is_{name}_available")() for name in vision_guard.COMPANIONS]


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Let these packages have these versions, and the others be missing."""

    def version(name: str) -> str:
        found = versions.get(name)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(vision_guard, "version", version)


def test_transformers_no_longer_believes_in_what_is_hidden(monkeypatch):
    checks = importlib.import_module(CHECKS)
    original = checks._is_package_available
    for name in vision_guard.COMPANIONS:
        getattr(checks, f"is_{name}_available").cache_clear()
    installed(monkeypatch, {"torch": "2.13.0+cpu", **dict.fromkeys(vision_guard.COMPANIONS, "1.0")})
    assert vision_guard.hide_mismatched_builds() == list(vision_guard.COMPANIONS)
    assert believed() == [False] * 3
    assert checks._is_package_available is original


@pytest.mark.parametrize(
    ("torch", "torchvision", "hidden"),
    [
        ("2.13.0+cpu", "0.28.0", True),
        ("2.13.0+cpu", "0.28.0+cpu", False),
        ("2.13.0", "0.28.0", False),
        ("2.13.0+cpu", None, False),
    ],
)
def test_only_builds_that_do_not_match_torch_are_hidden(monkeypatch, torch, torchvision, hidden):
    installed(monkeypatch, {"torch": torch, "torchvision": torchvision})
    assert vision_guard.hide_mismatched_builds() == (["torchvision"] if hidden else [])


PROGRAM = """
import sys
from uq_llm_integrations.backends.vision_guard import COMPANIONS, hide_mismatched_builds
hidden = hide_mismatched_builds(from_vllm=True)
from vllm.v1.engine.async_llm import AsyncLLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
assert None not in sys.modules.values()
assert not [name for name in hidden if name in sys.modules]
from importlib.util import find_spec
assert all(find_spec(name) for name in hidden), "a program may still find and import them"
assert [type(one) for one in sys.meta_path if "uq_llm" in type(one).__module__] == []
print("fine")
"""


def test_vllm_and_transformers_can_be_imported_and_nothing_else_has_changed():
    program = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert program.stdout.endswith("fine\n"), program.stderr
