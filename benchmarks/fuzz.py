"""Hypothesis against everything that comes from outside, many examples, and the table of them.

Runs the tests that are marked `fuzz`, with `UQ_LLM_FUZZ_TIMES` as many examples as they usually
have: each example is answered, or refused by an error of this package that says something. A test
that does not end is ended, with the stacks of all threads.

The table has the examples of each test that passed, and the seconds that the slowest took.
Arguments are those of pytest: of a part of the tests, the rows of the others stay as they were.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import pytest

from benchmarks.report import RESULTS, conclude, write_table

EXAMPLES = 100_000
SECONDS = 3600
"""After which a test counts as one that hangs."""

_OPTIONS = ("-q", "-m", "fuzz", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={SECONDS}")


class Passed:
    """The tests that passed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the test."""
        if report.when == "call" and report.passed:
            self.names.append(report.nodeid)


def main() -> None:
    """Run the tests, write the table and conclude."""
    passed, given = Passed(), sys.argv[1:]
    options = [*_OPTIONS, "-o", "faulthandler_exit_on_timeout=true", *given]
    code = pytest.main(options, plugins=[passed])
    from tests.fuzzing import RUN  # pytest warns of what is imported before it runs

    new = {name: vars(RUN[name]) for name in passed.names}
    figures = dict(sorted({**(last_run() if given else {}), **new}.items()))
    total = sum(run["count"] for run in figures.values())
    slowest = max(run["slowest"] for run in figures.values())
    rows = [row(*one) for one in (*figures.items(), ("all", {"count": total, "slowest": slowest}))]
    write_table("fuzz", ["what is tested", "examples", "slowest, s"], rows)
    conclude("fuzz", figures, {"examples": (EXAMPLES, total), "passed": (1, float(not code))})


def row(name: str, run: Mapping[str, float]) -> list[str]:
    """Return the cells of a test."""
    shown = name.rpartition("::test_")[2].replace("_", " ")
    return [shown, f"{run['count']:,}", f"{run['slowest']:.2f}"]


def last_run() -> dict[str, dict[str, float]]:
    """Return the figures of the tests that ran before."""
    path = RESULTS / "fuzz.json"
    return json.loads(path.read_text())["figures"] if path.is_file() else {}


if __name__ == "__main__":
    main()
