"""Statistics in whole responses and in the chunks of streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from uq_llm_integrations.backends.server.serving.answer_fields import Answers, beside

T = TypeVar("T")

_DATA = "data: "
_END = "\n\n"


async def watched(outputs: AsyncIterator[T], see: Callable[[T], None]) -> AsyncGenerator[T, None]:
    """Yield the engine's outputs once `see` has seen them; closing this closes them."""
    try:
        async for one in outputs:
            see(one)
            yield one
    finally:
        if isinstance(outputs, AsyncGenerator):
            await outputs.aclose()


async def with_statistics(
    lines: AsyncGenerator[str, None], answers: Answers
) -> AsyncGenerator[str, None]:
    """Yield the lines of a stream with each chunk's statistics in it."""
    async with aclosing(lines):
        async for line in lines:
            yield _changed(line, answers)


def _changed(line: str, answers: Answers) -> str:
    data = line.removeprefix(_DATA)
    if data is line or not data.startswith("{"):
        return line
    body = from_json(data)
    choices = body.get("choices") if isinstance(body, dict) else None
    if not choices:
        return line
    for one in choices:
        if "role" not in one.get("delta", ()):  # the first chunk of a chat has no token
            add_to_chunk(one, answers)
    return f"{_DATA}{to_json(body).decode()}{_END}"


def add_to_chunk(choice: dict[str, Any], answers: Answers) -> None:
    """Add to a chunk's choice the statistics of the tokens since the last chunk."""
    index = choice["index"]
    is_last = choice.get("finish_reason") is not None
    fields = answers.part(index, is_last=is_last)
    prompt = answers.prompt_part(index)
    choice["uncertainty"] = fields
    if prompt is not None:
        choice["prompt_uncertainty"] = prompt
    if isinstance(logprobs := choice.get("logprobs"), dict):
        values = _values(fields, prompt)
        if isinstance(content := logprobs.get("content"), list):
            for one, value in zip(content, beside(values, len(content)), strict=True):
                one["entropy"] = value
        elif isinstance(tokens := logprobs.get("tokens"), list):
            logprobs["entropy"] = beside(values, len(tokens))


def add_to_response(choices: Iterable[Any], answers: Answers) -> None:
    """Add to a response's choices, which are objects, the statistics of all of their tokens."""
    for place, choice in enumerate(choices):
        fields, prompt = answers.part(place, is_last=True), answers.prompt_part(place)
        choice.uncertainty = fields
        if prompt is not None:
            choice.prompt_uncertainty = prompt
        if (logprobs := choice.logprobs) is None:
            continue
        values = _values(fields, prompt)
        if content := getattr(logprobs, "content", None):
            for one, value in zip(content, beside(values, len(content)), strict=True):
                one.entropy = value
        elif (tokens := getattr(logprobs, "tokens", None)) is not None:
            logprobs.entropy = beside(values, len(tokens))


def _values(fields: dict[str, Any], prompt: dict[str, Any] | None) -> list[float | None]:
    """Return entropies in the order of tokens, those of an echoed prompt first."""
    return [*(prompt["entropy"] if prompt else ()), *fields["entropy"]]
