"""A scripted server in a process of its own, which answers each prompt with its last word.

A prompt that says `fault NAME:` gets that fault of `uq_llm_integrations.testing.SERVER_FAULTS`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from uq_llm_integrations.testing import SERVER_FAULTS, Fault, ScriptedServer
from uq_llm_integrations.testing.scripted_answers import shown

_FAULT = re.compile("fault (.+?):")


@contextmanager
def echoing_server() -> Iterator[str]:
    """Yield the address of such a server, which ends with the block."""
    command = [sys.executable, "-m", "benchmarks.echoing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def last_word(prompt: str) -> str:
    """Return what is answered to a prompt."""
    return prompt.split()[-1]


def fault_of(body: dict[str, Any]) -> Fault | None:
    """Return the fault that a prompt names."""
    text = body["prompt"] if isinstance(body["prompt"], str) else shown(body["prompt"])
    found = _FAULT.search(text)
    return SERVER_FAULTS[found[1]](Random(text)) if found else None


def serve() -> None:
    """Print the port, then answer for ever."""
    with ScriptedServer(last_word) as server:
        server.plan = fault_of
        print(server.port, flush=True)
        while True:
            time.sleep(1)
            server.requests.clear()  # it would keep all of them
            server.headers.clear()


if __name__ == "__main__":
    serve()
