"""The drivers: they carry a strategy's wishes to a backend and send back what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.errors import ConfigurationError, UncertaintyError
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.methods.wishes import (
    Compute,
    Decode,
    Encode,
    Generate,
    Inspect,
    Rescore,
    Split,
    Together,
)
from uq_llm_integrations.records import Request, Result
from uq_llm_integrations.strategies.wishes import Delegate, Strategy, Wish

T = TypeVar("T")


async def adrive(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> Result:
    """Run a strategy for one request."""
    check_available(methods, backend.capabilities, request.method_options)
    strategy.check(request, backend.capabilities)
    result: Result = await arun_steps(strategy(request, methods), backend)
    return result


async def arun_steps(steps: Generator[Wish, Any, T], backend: Backend, answer: Any = None) -> T:
    """Grant a generator's wishes and return what it returns.

    `answer` is that of the wish at which the generator waits, where it has begun already.
    """
    try:
        wish = steps.send(answer)
        while True:
            try:
                answer = await _granted(wish, backend)
            except UncertaintyError as error:
                wish = steps.throw(error)
            else:
                wish = steps.send(answer)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


async def adrive_all(
    strategy: Strategy,
    requests: Sequence[Request],
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> list[Result]:
    """Run a strategy for many requests at once; they meet in the backend's batch.

    Where one fails, the others are still finished, and the error's `completed` holds their results.
    """
    for request in requests:
        backend.check(request)
    outcomes = await asyncio.gather(
        *(adrive(strategy, request, backend, methods) for request in requests),
        return_exceptions=True,
    )
    completed = {i: out for i, out in enumerate(outcomes) if isinstance(out, Result)}
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            outcome.completed = completed  # type: ignore[attr-defined]  # ours or a foreign error
            raise outcome
    return list(completed.values())


def drive(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> Result:
    """Run a strategy for one request, blocking."""
    return backend.run(adrive(strategy, request, backend, methods))


def drive_all(
    strategy: Strategy,
    requests: Sequence[Request],
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> list[Result]:
    """Run a strategy for many requests at once, blocking."""
    return backend.run(adrive_all(strategy, requests, backend, methods))


async def _granted(wish: Wish, backend: Backend) -> Any:
    match wish:
        case Generate():
            return await backend.generate(wish.request, wish.monitor)
        case Delegate():
            request = await _encoded_for(wish.backend, wish.request)
            return await adrive(wish.strategy, request, wish.backend, wish.methods)
        case Rescore():
            return await backend.score_all(wish.prompt_ids, wish.continuations, wish.top_logprobs)
        case Inspect():
            return await backend.inspect_all(wish.texts, wish.inspection)
        case Encode() | Decode() | Split():
            return await _translated(wish, backend)
        case Compute():
            return await asyncio.to_thread(wish.run)
        case Together():
            return await _together([arun_steps(part, backend) for part in wish.parts])
    return await asyncio.sleep(wish.seconds)


async def _translated(wish: Encode | Decode | Split, backend: Backend) -> Any:
    """Turn text into tokens or tokens into text."""
    match wish:
        case Encode(text, follows=True):
            return await backend.encode_continuation(text)
        case Encode(text, chat):
            return await backend.encode(text, chat=chat)
        case Decode():
            return await backend.decode(wish.token_ids)
    return await backend.token_texts(wish.token_ids)


async def _together(runs: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all at once; where one fails, the others are stopped."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _encoded_for(backend: Backend, request: Request) -> Request:
    if request.conversation:
        return replace(request, prompt_ids=await backend.encode_chat(request.conversation))
    if request.text is None:
        raise ConfigurationError(
            "another model needs the prompt's text; give the request its `text`"
        )
    return replace(request, prompt_ids=await backend.encode(request.text, chat=request.chat))
