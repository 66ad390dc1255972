"""A deterministic backend that answers from a script, for tests of what is built on top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uq_llm_integrations.backends.base import (
    MAX_N,
    Backend,
    Capabilities,
    failed_candidate,
    layer_number,
)
from uq_llm_integrations.backends.codec import text_of
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.backends.token_texts import split_text
from uq_llm_integrations.errors import InvalidRequestError, UncertaintyError
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
    TokenTrace,
)


@dataclass(frozen=True)
class Said:
    """One scripted answer that is as sure as it says."""

    text: str
    sureness: float


Line = str | Said | UncertaintyError
"""One scripted answer: its text, or an error in its place."""

_SIZE = 256


class ScriptedBackend(Backend):
    """Answers each prompt with its own lines in turn, starting over at the end.

    A token is a byte of UTF-8, and all samples of a request grow by one token a step. At every
    token the distribution gives `sureness` to the scripted byte and spreads the rest evenly over
    the other 255, so every statistic has a closed form.
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
        return Capabilities("scripted", _SIZE, 4096, -1, MAX_N, why_no_activations=None)

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop for blocking callers."""
        return LoopThread()

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the bytes of the text; there is no chat template."""
        return tuple(text.encode())

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the bytes of a lone message's text, of more than one as `role: text` lines."""
        messages = [(one["role"], text_of(one)) for one in conversation.messages]
        if len(messages) == 1:
            return tuple(messages[0][1].encode())
        return tuple("\n".join(f"{role}: {text}" for role, text in messages).encode())

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the bytes of the text."""
        return tuple(text.encode())

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the bytes."""
        return _text(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each byte adds: a character comes with its last one."""
        return split_text(_text, token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return the next `request.n` lines of the prompt's script."""
        self.check(request)
        self.requests.append(request)
        await asyncio.sleep(self._delay)
        candidates = [self._candidate(request) for _ in range(request.n)]
        errors = [one.error for one in candidates if one.error]
        if len(errors) == len(candidates):
            raise errors[0]
        return _raced(candidates, monitor) if monitor else candidates

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate the next line byte by byte; an empty one is one piece."""
        (candidate,) = await self.generate(request)
        if not candidate.token_ids:
            yield StreamPiece("", (), candidate.trace, candidate)
        text = ""
        for i, piece in enumerate(await self.token_texts(candidate.token_ids)):
            is_last = i + 1 == len(candidate.token_ids)
            shown = candidate.text[len(text) :] if is_last else piece
            text += shown
            ids = candidate.token_ids[i : i + 1]
            part = candidate.trace[i : i + 1]
            yield StreamPiece(shown, ids, part, candidate if is_last else None)

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of any tokens, as if they were scripted."""
        return [
            self._said(tuple(prompt_ids), bytes(ids), self._sureness, None) for ids in continuations
        ]

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return internals in closed form.

        A token's hidden state at layer l of 4 is the bits of its byte times l + 1, and each of 2
        heads attends evenly to the token and all before it.
        """
        return [_internals(np.array(ids, np.uint8), self._sureness, inspection) for ids in texts]

    def _candidate(self, request: Request) -> Candidate:
        line = self._next_line(_text(request.prompt_ids))
        if isinstance(line, UncertaintyError):
            return failed_candidate(request.prompt_ids, line, _SIZE)
        text, sureness = (
            (line.text, line.sureness) if isinstance(line, Said) else (line, self._sureness)
        )
        said = text.encode()[: request.sampling.get("max_tokens")]
        reason = "stop" if said == text.encode() else "length"
        return _ended(self._said(request.prompt_ids, said, sureness, reason), request)

    def _next_line(self, prompt: str) -> Line:
        lines = self._script.get(prompt) if isinstance(self._script, Mapping) else self._script
        if not lines:
            raise InvalidRequestError(f"the script has no answer to {prompt!r}")
        number = self._used.get(prompt, 0)
        self._used[prompt] = number + 1
        return lines[number % len(lines)]

    def _said(
        self, prompt_ids: tuple[int, ...], said: bytes, sureness: float, reason: str | None
    ) -> Candidate:
        rest = (1.0 - sureness) / (_SIZE - 1)
        logprobs = np.full((len(said), _SIZE), np.log(rest) if rest else -np.inf)
        logprobs[np.arange(len(said)), list(said)] = np.log(sureness)
        exact = exact_statistics(dense_rows(logprobs))
        trace = TokenTrace(
            vocabulary_size=_SIZE,
            logprob=np.full(len(said), np.log(sureness)),
            rank=np.ones(len(said), np.int64),
            **exact,
        )
        return Candidate(prompt_ids, tuple(said), _text(said), trace, reason)


_LAYERS, _HEADS = 4, 2


def _internals(ids: NDArray[np.uint8], sureness: float, inspection: Inspection) -> Activations:
    bits = np.unpackbits(ids[:, np.newaxis], axis=1).astype(np.float32)
    layers = {layer: layer_number(layer, _LAYERS) for layer in inspection.hidden_layers}
    even = np.tril(np.ones((len(ids), len(ids)), np.float32))
    even /= even.sum(-1, keepdims=True)
    maps = np.broadcast_to(even, (_LAYERS, _HEADS, *even.shape))
    return Activations(
        logprob=np.full(len(ids) - 1, np.log(sureness), np.float32),
        hidden={layer: bits * (number + 1) for layer, number in layers.items()},
        attention_self=np.diagonal(maps, axis1=2, axis2=3) if inspection.attention else None,
        attention_last=maps[..., -1, :] if inspection.attention else None,
        attention_maps=maps if inspection.attention == "maps" else None,
    )


def _cut(candidate: Candidate, tokens: int, reason: str) -> Candidate:
    ids = candidate.token_ids[:tokens]
    trace = candidate.trace[:tokens]
    return replace(candidate, token_ids=ids, text=_text(ids), trace=trace, finish_reason=reason)


def _ended(candidate: Candidate, request: Request) -> Candidate:
    """Cut a candidate where its request ends it early."""
    candidate = _stopped(candidate, request.sampling)
    if (until := request.until) is not None:
        for tokens in range(1, len(candidate.token_ids) + 1):
            if until(_text(candidate.token_ids[:tokens])):
                candidate = _cut(candidate, tokens, "boundary")
                break
    if (rule := request.early_stop) is not None and len(candidate.token_ids) >= rule.window:
        value = _uncertainty(candidate.trace, rule.statistic)  # the same at every token
        if value > rule.above:
            candidate = _cut(candidate, rule.window, "early_stop")
    return candidate


def _stopped(candidate: Candidate, sampling: Mapping[str, Any]) -> Candidate:
    stop = sampling.get("stop") or ()
    strings = (stop,) if isinstance(stop, str) else stop
    for tokens in range(1, len(candidate.token_ids) + 1):
        text = _text(candidate.token_ids[:tokens])
        for string in strings:
            if text.endswith(string):
                shown = text if _shows_stop(sampling) else text.removesuffix(string)
                return replace(_cut(candidate, tokens, "stop"), text=shown, stop_reason=string)
    return candidate


def _shows_stop(sampling: Mapping[str, Any]) -> bool:
    return bool(sampling.get("include_stop_str_in_output"))


def _text(token_ids: Sequence[int]) -> str:
    return bytes(token_ids).decode(errors="replace")


def _uncertainty(trace: TokenTrace, statistic: str) -> float:
    assert trace.entropy is not None and trace.mean_logprob is not None
    if statistic == "entropy":
        return float(trace.entropy[0])
    return float(trace.mean_logprob[0] + np.log(_SIZE))


def _raced(candidates: list[Candidate], monitor: SampleMonitor) -> list[Candidate]:
    """Let the candidates run side by side, and leave those that the monitor tells to leave."""
    outcome, finished, is_enough = list(candidates), list[Candidate](), False
    running = {i for i, one in enumerate(candidates) if one.error is None}
    for step in range(1 + max(len(one.token_ids) for one in candidates)):
        for i in sorted(running):
            one = candidates[i]
            logprobs = one.trace.logprob[:step].tolist()
            if len(one.token_ids) == step:
                running.remove(i)
                finished += [one] if one.is_whole else []
                is_enough = is_enough or bool(monitor.enough and monitor.enough(finished))
            elif is_enough or (monitor.hopeless and monitor.hopeless(logprobs, finished)):
                running.remove(i)
                outcome[i] = _cut(one, step, "abort")
    return outcome
