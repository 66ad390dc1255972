"""How long `import uq_llm_integrations` takes, by `python -X importtime`; under 0.2 seconds."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.report import conclude

LIMIT = 0.2


def main() -> None:
    """Measure and conclude."""
    seconds = min(import_seconds() for _ in range(5))
    print(f"import uq_llm_integrations: {seconds:.4f} s")
    conclude("import_time", {"seconds": seconds}, {"limit / seconds": (1.0, LIMIT / seconds)})


def import_seconds() -> float:
    """Return the cumulative time of the import in a fresh process."""
    command = [sys.executable, "-X", "importtime", "-c", "import uq_llm_integrations"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (line,) = [one for one in report.splitlines() if one.endswith("| uq_llm_integrations")]
    return float(line.split("|")[1]) / 1e6


if __name__ == "__main__":
    main()
