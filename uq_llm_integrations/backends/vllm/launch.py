"""Starting vLLM: checked arguments in, a running AsyncLLM out."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.reaches import check_unread_version
from uq_llm_integrations.backends.sampling_values import Kind, whole
from uq_llm_integrations.backends.server.serving.marks import without_plugin
from uq_llm_integrations.backends.vllm import client_compat
from uq_llm_integrations.backends.vllm.worker.protocol import (
    CHILD_MODULE,
    WORKER_EXTENSION,
    probe_name,
)
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineStartError,
    InvalidRequestError,
    MissingDependencyError,
    ModelNotFoundError,
    described,
    reason,
    suggestion,
)
from uq_llm_integrations.secret_values import concealing, opened

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

RESERVED_CORES = "VLLM_CPU_NUM_OF_RESERVED_CPU"
"""vLLM's variable for the cores that it does not compute on."""

GRACE_SECONDS = 5.0
"""How long a process of a start that is given up may take to end by itself."""


def check_engine_arguments(arguments: Mapping[str, object]) -> None:
    """Raise ConfigurationError for names that vLLM's AsyncEngineArgs does not have.

    Where vLLM is not installed, settings are still read and saved; a start says that it is missing.
    """
    try:
        known = client_compat.engine_argument_names()
    except MissingDependencyError:
        return
    for name in arguments:
        if name not in known:
            near = suggestion(name, known)
            raise ConfigurationError(f"vLLM has no engine argument {described(name)}{near}")


_VALUES: Mapping[str, Kind[object]] = {
    "tensor_parallel_size": whole(1),
    "pipeline_parallel_size": whole(1),
    "data_parallel_size": whole(1),
    "max_logprobs": whole(-1),
}
"""Arguments that are read here, too, before vLLM itself checks them."""


def checked_values(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return arguments with exact values of those that are read before the engine starts.

    Raises ConfigurationError for one that can never work.
    """
    try:
        return {
            name: _VALUES[name](name, value) if name in _VALUES else value
            for name, value in arguments.items()
        }
    except InvalidRequestError as error:
        raise ConfigurationError(str(error)) from None


class SpawnedProcesses:
    """The processes that one start spawns, of which none is left once it is cancelled."""

    def __init__(self) -> None:
        self._before = set(multiprocessing.active_children())
        self._names: set[str] = set()
        self._is_cancelled = threading.Event()

    def add(self, name: str) -> None:
        """Expect a process of this name; raises EngineStartError once the start is cancelled."""
        self.check()
        self._names.add(name)
        _names.add(name)

    def check(self) -> None:
        """Raise EngineStartError once the start is cancelled."""
        if self._is_cancelled.is_set():
            raise EngineStartError("the engine's start was cancelled")

    def cancel(self) -> None:
        """Let no further process be spawned."""
        self._is_cancelled.set()

    def end(self, is_over: Callable[[], bool]) -> None:
        """End the processes, and those that come until the start is over; blocking."""
        ends: dict[int | None, float] = {}
        while not (is_over() and not self._alive):
            for process in self._alive:
                if process.pid not in ends:
                    process.terminate()  # it ends its own children, too
                    ends[process.pid] = time.monotonic() + GRACE_SECONDS
                elif time.monotonic() > ends[process.pid]:
                    process.kill()
            time.sleep(0.05)

    @property
    def _alive(self) -> list[BaseProcess]:
        return [one for one in _alive(self._names) if one not in self._before]


_names: set[str] = set()
"""The names of all processes that were spawned here."""


def _alive(names: set[str]) -> list[BaseProcess]:
    """Return the children with these names that still run.

    Of a child for which somebody else has waited, multiprocessing never learns that it has ended.
    """
    named = [one for one in multiprocessing.active_children() if one.name in names]
    return [one for one in named if one.pid and _is_there(one.pid)]


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end_processes(seconds: float) -> None:
    """End all processes of engines, at the program's end; blocking, and so long at most.

    Also those of which nobody knows any more, since an interrupt came into their shutdown.
    """
    begun = time.monotonic()
    while processes := _alive(_names):
        for process in processes:
            if time.monotonic() - begun < seconds:
                process.terminate()
            else:
                process.kill()
        time.sleep(0.05)


def start_async_llm(
    arguments: Mapping[str, object], spawned: SpawnedProcesses
) -> tuple[AsyncLLM, str | None]:
    """Start an engine with the probe in it, on the running event loop, which it blocks.

    Returns the engine and, where the probe cannot be had, the reason. Starts may not overlap.
    """
    spawned.check()
    return concealing(arguments, lambda: _started(arguments, spawned))


def _started(
    arguments: Mapping[str, object], spawned: SpawnedProcesses
) -> tuple[AsyncLLM, str | None]:
    with _environment(without_plugin(os.environ)):
        return _started_without_plugin(arguments, spawned)


def _started_without_plugin(
    arguments: Mapping[str, object], spawned: SpawnedProcesses
) -> tuple[AsyncLLM, str | None]:
    """Start an engine that the plugin for servers does not touch: it has a probe of its own."""
    config = _engine_config(arguments)
    why_no_probe = _install_probe(config)
    with _environment(_environment_of(config)), own_main_module(spawned), children_allowed():
        try:
            engine = client_compat.start_async_llm(
                config, disable_log_stats=bool(arguments.get("disable_log_stats", True))
            )
        except EngineStartError:
            raise
        except Exception as error:
            raise EngineStartError(f"vLLM did not start: {reason(error)}") from error
    return engine, why_no_probe


@contextmanager
def children_allowed() -> Iterator[None]:
    """Let this process have children though it is a worker of a pool, which Python forbids.

    They end with it by themselves, see `worker.child`.
    """
    process = multiprocessing.current_process()
    if not process.daemon:
        yield
        return
    process.daemon = False
    try:
        yield
    finally:
        process.daemon = True


@contextmanager
def own_main_module(spawned: SpawnedProcesses | None = None) -> Iterator[None]:
    """Let processes that this thread spawns run `worker.child`, not the caller's main module.

    Example:
        with own_main_module():
            llm = AsyncLLM.from_vllm_config(config)
    """
    spawned = spawned or SpawnedProcesses()
    with client_compat.main_module_replaced(CHILD_MODULE, spawned.add):
        yield


def install_probe(config: VllmConfig) -> None:
    """Put the probe into a configuration from which an engine has not been started yet.

    Example:
        config = AsyncEngineArgs(model="org/name").create_engine_config()
        install_probe(config)
        backend = VLLMEngineBackend(engine=AsyncLLM.from_vllm_config(config))
    """
    probe = probe_name(use_v2_model_runner=config.use_v2_model_runner)
    client_compat.load_in_workers(config, probe, WORKER_EXTENSION)


def why_ready_engine_is_inexact(config: VllmConfig) -> str | None:
    """Return why an engine started by the user gives no exact statistics, None where it does."""
    names = config.model_config.logits_processors or []
    extension = config.parallel_config.worker_extension_cls
    probe = probe_name(use_v2_model_runner=config.use_v2_model_runner)
    if probe in names and extension == WORKER_EXTENSION:
        return _why_no_probe(config)
    return "the engine was started without the probe; see install_probe"


def _install_probe(config: VllmConfig) -> str | None:
    why_not = _why_no_probe(config)
    if config.parallel_config.worker_extension_cls:
        why_not = "the engine has a worker extension of its own"
    if why_not is None:
        install_probe(config)
    return why_not


def _why_no_probe(config: VllmConfig) -> str | None:
    if config.speculative_config is not None:
        return "the probe does not work with speculative decoding"
    if config.parallel_config.data_parallel_size > 1:
        return "the probe cannot be read from more than one data-parallel engine"
    if config.model_config.logprobs_mode != "raw_logprobs":
        return f"the probe sees raw_logprobs, not {config.model_config.logprobs_mode}"
    return None


def _engine_config(arguments: Mapping[str, object]) -> VllmConfig:
    client_compat.engine_arguments_class()  # without vLLM, that says how it is installed
    check_engine_arguments(arguments)
    check_unread_version()
    try:
        return client_compat.create_engine_config({**platform_defaults(), **opened(arguments)})
    except OSError as error:
        raise ModelNotFoundError(
            f"cannot load {described(arguments['model'])}: {reason(error)}"
        ) from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigurationError(f"vLLM refuses its engine arguments: {reason(error)}") from error


def platform_defaults() -> dict[str, object]:
    """Return engine arguments that keep vLLM alive on the CPU.

    With chunked prefill, a seeded request whose prompt is cut into chunks kills the engine: it
    rewinds the request's random generator, which on the CPU cannot be rewound. Without a C++
    compiler torch.compile cannot work.
    """
    if not client_compat.is_cpu():
        return {}
    from uq_llm_integrations.backends.token_statistics_torch import has_compiler

    defaults: dict[str, object] = {"enable_chunked_prefill": False}
    if not has_compiler():
        logger.warning("no C++ compiler was found: the model runs uncompiled, a bit slower")
        defaults["enforce_eager"] = True
    return defaults


def _environment_of(config: VllmConfig) -> dict[str, str]:
    spawned = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if config.device_config.device_type != "cpu":
        return spawned
    return spawned | cpu_environment(is_eager=config.model_config.enforce_eager)


def cpu_environment(*, is_eager: bool) -> dict[str, str]:
    """Return what an engine's processes need in their environment on the CPU.

    vLLM keeps one core free there for a server, which an embedded engine has not, and which has
    little to do: on two cores that is half of its speed. And it compiles a helper of its
    log-probabilities even with `enforce_eager`, which takes seconds and a compiler; here, eager
    means eager.
    """
    environment = {} if RESERVED_CORES in os.environ else {RESERVED_CORES: "0"}
    return environment | ({"TORCHDYNAMO_DISABLE": "1"} if is_eager else {})


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while this is open, and leave them as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
