"""A deterministic backend that answers from a script, for tests of what is built on top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import cached_property

import numpy as np

from uq_llm_integrations.backends.base import MAX_N, Backend, Capabilities
from uq_llm_integrations.backends.loop import LoopThread
from uq_llm_integrations.backends.row_sums import dense_rows, exact_statistics
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Candidate, Request, StreamPiece, TokenTrace

Line = str | Exception
"""One scripted answer: its text, or an error to raise in its place."""

_SIZE = 256


class ScriptedBackend(Backend):
    """Answers each prompt with its own lines in turn, starting over at the end.

    A token is a byte of UTF-8. At every token the distribution gives `sureness` to the scripted
    byte and spreads the rest evenly over the other 255, so every statistic has a closed form.
    `delay` is how many seconds an answer takes.
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[Line]] | Sequence[Line],
        *,
        sureness: float = 0.9,
        delay: float = 0.0,
    ) -> None:
        self._script = script
        self._sureness, self._delay = sureness, delay
        self._used: dict[str, int] = {}
        self.requests: list[Request] = []
        """All requests, in the order in which they came."""

    @property
    def capabilities(self) -> Capabilities:
        """All that a backend can have; the context is 4096 bytes."""
        return Capabilities("scripted", _SIZE, 4096, -1, MAX_N)

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop for blocking callers."""
        return LoopThread()

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the bytes of the text; there is no chat template."""
        return tuple(text.encode())

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the bytes of the text."""
        return tuple(text.encode())

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return one character a byte."""
        return [bytes([token]).decode("latin-1") for token in token_ids]

    async def generate(self, request: Request) -> list[Candidate]:
        """Return the next `request.n` lines of the prompt's script."""
        self.check(request)
        self.requests.append(request)
        await asyncio.sleep(self._delay)
        return [self._candidate(request) for _ in range(request.n)]

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate the next line byte by byte."""
        (candidate,) = await self.generate(request)
        logprobs = candidate.trace.logprob.tolist()
        for i, (token, logprob) in enumerate(zip(candidate.token_ids, logprobs, strict=True)):
            is_last = i + 1 == len(candidate.token_ids)
            text = candidate.text[i : i + 1]
            yield StreamPiece(text, (token,), (logprob,), candidate if is_last else None)

    async def score(
        self, prompt_ids: Sequence[int], token_ids: Sequence[int], top_logprobs: int | None = None
    ) -> Candidate:
        """Return the trace of any tokens, as if they were scripted."""
        return self._said(tuple(prompt_ids), bytes(token_ids), None)

    def _candidate(self, request: Request) -> Candidate:
        prompt = bytes(request.prompt_ids).decode()
        lines = self._script.get(prompt) if isinstance(self._script, Mapping) else self._script
        if not lines:
            raise InvalidRequestError(f"the script has no answer to {prompt!r}")
        number = self._used.get(prompt, 0)
        self._used[prompt] = number + 1
        line = lines[number % len(lines)]
        if isinstance(line, Exception):
            raise line
        limit = request.sampling.get("max_tokens")
        said = line.encode()[:limit]
        return self._said(request.prompt_ids, said, "stop" if said == line.encode() else "length")

    def _said(self, prompt_ids: tuple[int, ...], said: bytes, reason: str | None) -> Candidate:
        rest = (1.0 - self._sureness) / (_SIZE - 1)
        logprobs = np.full((len(said), _SIZE), np.log(rest) if rest else -np.inf)
        logprobs[np.arange(len(said)), list(said)] = np.log(self._sureness)
        exact = exact_statistics(dense_rows(logprobs))
        trace = TokenTrace(
            vocabulary_size=_SIZE,
            logprob=np.full(len(said), np.log(self._sureness)),
            rank=np.ones(len(said), np.int64),
            **exact,
        )
        return Candidate(prompt_ids, tuple(said), said.decode(errors="replace"), trace, reason)
