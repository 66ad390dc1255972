"""A program whose starts of an engine are interrupted, and which ends with an open engine."""

import asyncio
import os
import pickle
import signal
import sys
import threading
import time

import psutil

from uq_llm_integrations import EngineStartError, Request, VLLMEngineBackend

REQUEST = Request((1, 100), sampling={"max_tokens": 2})


def report(what: str) -> None:
    sys.stdout.write(f"{what}\n")


def engines() -> list[psutil.Process]:
    """The processes below this one, except Python's resource tracker, which stays by design."""
    return [one for one in psutil.Process().children(recursive=True) if is_engine(one)]


def is_engine(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return True  # until its parent has seen its end
    except psutil.NoSuchProcess:
        return False


def wait_until(has_engines: bool, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while bool(engines()) is not has_engines:
        if time.monotonic() > end:
            sys.exit(f"after {seconds} s the processes are {engines()}")
        time.sleep(0.05)


async def cancel_a_start(backend: VLLMEngineBackend) -> None:
    starting = asyncio.create_task(backend.generate(REQUEST))
    await asyncio.to_thread(wait_until, True)
    starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        report("cancelled")


def interrupt_a_start(backend: VLLMEngineBackend) -> None:
    def press_ctrl_c() -> None:
        wait_until(True)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_ctrl_c).start()
    try:
        backend.run(backend.generate(REQUEST))
    except KeyboardInterrupt:
        report("interrupted")


def let_a_start_fail(backend: VLLMEngineBackend) -> None:
    try:
        backend.start()
    except EngineStartError:
        report("failed")


def interrupt_starts(backend: VLLMEngineBackend) -> None:
    asyncio.run(cancel_a_start(backend))
    wait_until(False)
    interrupt_a_start(backend)
    wait_until(False)


def fork(backend: VLLMEngineBackend) -> None:
    """The child runs to its end, which must not be that of its parent's engine."""
    backend.run(backend.generate(REQUEST))
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        backend.run(backend.generate(REQUEST))
        report("answered")
        sys.stderr.write("now the end\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    given = pickle.loads(bytes.fromhex(sys.argv[1]))
    if "fail" in sys.argv:
        let_a_start_fail(given)
        wait_until(False)
    else:
        interrupt_starts(given)
        fork(given)
