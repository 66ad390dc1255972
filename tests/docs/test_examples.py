"""Every Python example of the README and of the documentation runs.

The blocks of a page run in their order, in one namespace. A block marked `python engine` needs a
model; all of them run on the engine of the session, whatever engine they describe. One marked
`python server` needs a server, and gets a scripted one, wherever it says that it is; one marked
`python exact` gets a real one with the plugin. Where a block has lines `# > text`, they are what
it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.conftest import ENGINE_ARGUMENTS
from tests.vllm_server import VLLMServer
from uq_llm_integrations import METHODS, Configuration, VLLMEngineBackend, VLLMServerBackend
from uq_llm_integrations.methods import registry
from uq_llm_integrations.strategies import STRATEGIES
from uq_llm_integrations.testing import ScriptedServer

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

ADDRESS = "http://localhost:8000"
"""Where the server of an example is."""

_BLOCK = re.compile(
    r"^```(?P<kind>python(?: engine| server| exact)?|yaml)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    code: str
    name: str
    """The file, and the line from which tracebacks count."""
    line: int

    def run(self, namespace: dict[str, Any]) -> None:
        """Run the block, and compare what it prints with what it says that it prints."""
        printed = io.StringIO()
        code = compile("\n" * self.line + self.code, self.name, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        expected = re.findall(r"^# > ?(.*)$", self.code, re.M)
        if expected:
            assert [line.rstrip() for line in printed.getvalue().splitlines()] == expected


def blocks(page: Path, *kinds: str) -> list[Block]:
    """Return the blocks of a page that are of these kinds, in their order."""
    text = page.read_text()
    return [
        Block(found["kind"], found["code"], str(page), text.count("\n", 0, found.start("code")))
        for found in _BLOCK.finditer(text)
        if found["kind"] in kinds
    ]


def pages_with(kind: str) -> list[Any]:
    """Return the pages that have blocks of a kind, as parameters."""
    return [
        pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page, kind)
    ]


@pytest.fixture
def session_engine(
    backend: VLLMEngineBackend, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VLLMEngineBackend]:
    """Let every vLLM backend that an example makes share the engine of the session."""
    start = VLLMEngineBackend.__init__

    def on_session_engine(self: VLLMEngineBackend, *_: object, **__: object) -> None:
        start(self, "smollm2", **ENGINE_ARGUMENTS)

    monkeypatch.setattr(VLLMEngineBackend, "__init__", on_session_engine)
    yield backend


@pytest.fixture
def session_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """Let every client of servers that an example makes ask a scripted one."""
    start = VLLMServerBackend.__init__
    server = ScriptedServer(["The capital of France is Paris."])

    def of_scripted_server(self: VLLMServerBackend, base_url: object, **options: Any) -> None:
        assert base_url
        start(self, server.url, **options)

    monkeypatch.setattr(VLLMServerBackend, "__init__", of_scripted_server)
    yield server
    server.close()


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names of an empty module, in an empty folder where an example may save a file."""
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))
    with kept(METHODS), kept(STRATEGIES):
        yield module.__dict__


@contextlib.contextmanager
def kept(table: dict[str, Any]) -> Iterator[None]:
    """Take out again what an example registers."""
    before = dict(table)
    yield
    table.clear()
    table.update(before)


@pytest.mark.parametrize("page", pages_with("python"))
def test_scripted_examples_run(page: Path, namespace: dict[str, Any]) -> None:
    for block in blocks(page, "python"):
        block.run(namespace)


@pytest.mark.engine
@pytest.mark.parametrize("page", pages_with("python engine"))
def test_examples_run_on_the_engine(
    page: Path, namespace: dict[str, Any], session_engine: VLLMEngineBackend
) -> None:
    for block in blocks(page, "python", "python engine"):
        block.run(namespace)


@pytest.mark.loopback
@pytest.mark.parametrize("page", pages_with("python server"))
def test_examples_run_on_a_server(
    page: Path, namespace: dict[str, Any], session_server: ScriptedServer
) -> None:
    for block in blocks(page, "python server"):
        block.run(namespace)


@pytest.mark.engine
@pytest.mark.parametrize("page", pages_with("python exact"))
def test_examples_run_on_a_real_server(
    page: Path, namespace: dict[str, Any], exact_server: VLLMServer
) -> None:
    for block in blocks(page, "python exact"):
        replace(block, code=block.code.replace(ADDRESS, exact_server.url)).run(namespace)


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_configuration_files_can_be_read(page: Path) -> None:
    for block in blocks(page, "yaml"):
        Configuration.read({"generator": {"model": "smollm2"}} | yaml.safe_load(block.code))


@pytest.mark.engine
def test_the_readme_s_example_prints_on_a_server_what_it_prints_on_an_engine(
    namespace: dict[str, Any], exact_server: VLLMServer
) -> None:
    (block,) = blocks(ROOT / "README.md", "python server")
    replace(block, code=block.code.replace(ADDRESS, exact_server.url)).run(namespace)
    message = namespace["message"]
    shown = f"{message.content} {message.response_metadata['uncertainty']['scores']}"
    stated = re.search(r"^prints `(.*\{'entropy'.*\})`", (ROOT / "README.md").read_text(), re.M)
    assert stated is not None
    parts = map(re.escape, stated[1].split("..."))
    assert re.fullmatch(r"\d*".join(parts), shown), shown


def test_every_python_fence_is_one_that_is_run() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(py\w*.*)$", page.read_text(), re.M)
        kinds = "python", "python engine", "python server", "python exact"
        assert len(fences) == len(blocks(page, *kinds)), page
