"""Hypothesis against everything that comes from outside, many examples, and the table of them.

Runs the tests that are marked `fuzz`, with `UQ_LLM_FUZZ_TIMES` as many examples as they usually
have: each example is answered, or refused by an error of this package that says something. A test
that does not end is ended, with the stacks of all threads.

The table has the examples of each test, and the seconds that the slowest of them took. Arguments
are those of pytest; the table is written of whole runs alone.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks.report import conclude, write_table

EXAMPLES = 100_000
SECONDS = 3600
"""After which a test counts as one that hangs."""

_OPTIONS = ("-q", "-m", "fuzz", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={SECONDS}")


def main() -> None:
    """Run all of them and conclude."""
    code = pytest.main([*_OPTIONS, "-o", "faulthandler_exit_on_timeout=true", *sys.argv[1:]])
    if code or sys.argv[1:]:
        sys.exit(code)
    from tests.fuzzing import RUN, TIMES  # pytest warns of what is imported before it runs

    rows = [
        [words(name), f"{run.count:,}", f"{run.slowest:.2f}"] for name, run in sorted(RUN.items())
    ]
    total = sum(run.count for run in RUN.values())
    rows.append(["all", f"{total:,}", f"{max(run.slowest for run in RUN.values()):.2f}"])
    write_table("fuzz", ["what is tested", "examples", "slowest, s"], rows)
    figures = {"times": TIMES, **{name: vars(run) for name, run in sorted(RUN.items())}}
    conclude("fuzz", figures, {"examples": (EXAMPLES, total)})


def words(name: str) -> str:
    """Return what a test says that it shows.

    Example:
        >>> words("tests.test_any_request.test_any_prompt_is_answered_or_refused")
        'any prompt is answered or refused'
    """
    return name.rpartition(".test_")[2].replace("_", " ")


if __name__ == "__main__":
    main()
