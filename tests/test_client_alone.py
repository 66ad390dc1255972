"""What a client of servers installs: `uq-llm-integrations[langchain,server]`, and nothing heavy."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement

import uq_llm_integrations as package

ABSENT = (
    *("torch", "vllm", "transformers", "lm_polygraph", "scipy", "sklearn", "accelerate"),
    *("llama_index", "rich", "typer", "safetensors", "nltk"),
)
MOST_BYTES = 150_000_000

installed_alone = pytest.mark.skipif(
    "UQ_LLM_CLIENT_ALONE" not in os.environ, reason="tox run -e server-client installs it alone"
)


def installed(name: str, extras: frozenset[str], seen: set[str]) -> Iterator[Distribution]:
    """A distribution, and all that it needs with these extras."""
    known = {f"{name}[{one}]" for one in (*extras, "")}
    if known <= seen:
        return
    seen |= known
    found = distribution(name)
    yield found
    for text in found.requires or ():
        one = Requirement(text)
        if any(one.marker is None or one.marker.evaluate({"extra": e}) for e in (*extras, "")):
            yield from installed(one.name, frozenset(one.extras), seen)


def size(found: Distribution) -> int:
    """The bytes of its files that are there, without the bytecode that pip may compile of them."""
    shipped = [one for one in found.files or () if "__pycache__" not in one.parts]
    paths = [found.locate_file(one) for one in shipped]
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


@installed_alone
def test_nothing_heavy_is_installed():
    assert [name for name in ABSENT if find_spec(name)] == []


@installed_alone
@pytest.mark.parametrize(
    ("used", "extra"),
    [
        ("package.ChatVLLMUncertainty(model='org/name').invoke('a')", "vllm"),
        ("package.ChatHuggingFaceUncertainty(model='org/name').invoke('a')", "hf"),
        ("import uq_llm_integrations.llama_index", "llama-index"),
        ("import uq_llm_integrations.cli", "cli"),
    ],
)
def test_what_needs_more_says_what_to_install(used, extra):
    with pytest.raises(package.MissingDependencyError, match=rf"integrations\[{extra}\]"):
        exec(used, {"package": package})


@installed_alone
def test_the_installation_is_small():
    found = installed("uq-llm-integrations", frozenset({"langchain", "server"}), set())
    sizes = {one.name: size(one) for one in found}
    assert {"numpy", "langchain-core", "httpx"} <= sizes.keys()
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_every_public_name_is_there_without_what_is_heavy():
    program = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import uq_llm_integrations as package

for name in package.__all__:
    getattr(package, name)
chat = package.ChatVLLMUncertainty(backend=package.ScriptedBackend(["Paris"]))
print(chat.invoke("Capital of France?").content)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("Paris\n", "")
