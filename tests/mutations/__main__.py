"""Break the package on purpose, one break after the other, and see whether a test notices.

    python -m tests.mutations [words of the names of breaks]

Each is made in a copy. What came of it is printed as a table, and written into the file that
`UQ_LLM_MUTATIONS_TABLE` names. Ends with 1 where a break was not noticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from tempfile import TemporaryDirectory

from tests.mutations.breaks import BREAKS, Break

ROOT = Path(__file__).parents[2]
PACKAGE = "uq_llm_integrations"
SECONDS = 300
"""After which the tests of a break count as ones that hang, and so have noticed it."""

HEAD = """# Deliberate breaks

What `python -m tests.mutations`, a part of `tox run -e campaign`, wrote: each line is a break of
the package, made on purpose in a copy of it, and whether the tests noticed.

| break | file | noticed | by |
|---|---|---|---|
"""


def copied(folder: Path) -> None:
    """Copy what the tests need."""
    leave = ignore_patterns("__pycache__", ".hypothesis")
    for name in (PACKAGE, "tests", "benchmarks", "docs"):
        copytree(ROOT / name, folder / name, ignore=leave)
    for name in ("pyproject.toml", "README.md"):
        copy(ROOT / name, folder / name)


def noticed(folder: Path, one: Break) -> str:
    """Return what noticed a break, or nothing."""
    path = folder / PACKAGE / one.file
    text = path.read_text()
    assert text.count(one.old) == 1, f"{one.file} has {text.count(one.old)} times {one.old!r}"
    path.write_text(text.replace(one.old, one.new))
    try:
        return failed_test(folder, one.tests.split())
    finally:
        path.write_text(text)


def failed_test(folder: Path, tests: Sequence[str]) -> str:
    """Return the first test that fails, or nothing where none does."""
    options = ["-q", "-x", "-m", "not engine and not fuzz", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    variables = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "a test that does not end"
    assert run.returncode in (0, 1), run.stdout[-4000:] + run.stderr[-4000:]
    lines = [one for one in run.stdout.splitlines() if one.startswith(("FAILED ", "ERROR "))]
    return lines[0].split(" - ")[0].split(" ", 1)[1] if lines else ""


def main(words: Sequence[str]) -> int:
    """Make all breaks, or those in whose names one of the words is."""
    table, missed = HEAD, 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        for one in BREAKS:
            if words and not any(word in one.name for word in words):
                continue
            by = noticed(folder, one)
            missed += not by
            row = f"| {one.name} | `{one.file}` | {'yes' if by else '**no**'} | {by} |\n"
            print(row, end="", flush=True)
            table += row.replace("[", "\\[")
    if path := os.environ.get("UQ_LLM_MUTATIONS_TABLE"):
        Path(path).write_text(table)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
