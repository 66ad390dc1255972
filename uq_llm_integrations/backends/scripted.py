"""A deterministic backend that answers from a script, for tests of what is built on top."""

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from uq_llm_integrations.backends.base import Backend, failed_candidate, layer_numbers
from uq_llm_integrations.backends.capabilities import MAX_N, Capabilities, check_request
from uq_llm_integrations.backends.content_blocks import plain_messages
from uq_llm_integrations.backends.event_loop import LoopThread, end_own_loop
from uq_llm_integrations.backends.streams import stream_of
from uq_llm_integrations.backends.token_texts import split_text
from uq_llm_integrations.backends.unicode_text import check_conversation, checked_text
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    UncertaintyError,
    described,
)
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Floats,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
    TokenTrace,
)

_SIZE = 256
_LAYERS, _HEADS = 4, 2


@dataclass(frozen=True)
class ScriptedLine:
    """One scripted answer with a `probability` of its own, that of each of its tokens."""

    text: str
    probability: float

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ConfigurationError(f"text is {described(self.text)}; it must be a text")
        _check(self.probability)


Line = str | ScriptedLine | UncertaintyError
"""One scripted answer: its text, or an error in its place."""


class ScriptedBackend(Backend):
    """Answers each prompt with its own lines in turn, starting over at the end.

    `script` maps prompts to lines, or is a list of lines for any prompt. A token is a byte of
    UTF-8, and all samples of a request grow by one token a step. At every token the distribution
    gives `probability`, above 0 and up to 1, to the scripted byte and spreads the rest evenly over
    the other 255, so every statistic has a closed form. `delay` is how many seconds a call takes.
    A copy has the script, and goes on where the original was when it was copied.

    Example:
        >>> backend = ScriptedBackend({"Capital of France?": ["Paris", "Lyon"]}, probability=0.8)
        >>> ids = backend.run(backend.encode("Capital of France?"))
        >>> [one.text for one in backend.run(backend.generate(Request(ids, n=2)))]
        ['Paris', 'Lyon']
    """

    capabilities = Capabilities("scripted", _SIZE, 4096, -1, MAX_N, why_no_activations=None)

    def __init__(
        self,
        script: Mapping[str, Sequence[Line]] | Sequence[Line],
        *,
        probability: float = 0.9,
        delay: float = 0.0,
    ) -> None:
        _check(probability)
        _check_script(script)
        is_number = isinstance(delay, int | float) and not isinstance(delay, bool)
        if not is_number or not 0 <= delay <= sys.float_info.max:
            raise ConfigurationError(f"delay is {described(delay)}; allowed are seconds from 0")
        self._script = script
        self._probability, self._delay = probability, delay
        self._used: dict[str, int] = {}
        self.requests: list[Request] = []
        """All requests, in the order in which they came."""

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop for blocking callers."""
        return LoopThread()

    def close(self) -> None:
        """End the event loop for blocking callers, and all calls."""
        super().close()
        end_own_loop(self)

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the bytes of the text; there is no chat template."""
        self.open_calls.check()
        return tuple(checked_text(text, "the prompt").encode())

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the bytes of a lone message's text, of more than one as `role: text` lines."""
        self.open_calls.check()
        check_conversation(conversation)
        messages = plain_messages(conversation.messages)
        if len(messages) == 1:
            return tuple(messages[0]["content"].encode())
        lines = (f"{one['role']}: {one['content']}" for one in messages)
        return tuple("\n".join(lines).encode())

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the bytes of the text."""
        self.open_calls.check()
        return tuple(checked_text(text, "the text").encode())

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the bytes."""
        self.open_calls.check()
        return _decode(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each byte adds: a character comes with its last one."""
        self.open_calls.check()
        return split_text(_decode, token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return the next `request.n` lines of the prompt's script."""
        checked = check_request(request, self.capabilities)
        with self.open_calls.call():
            self.requests.append(request)
            await asyncio.sleep(self._delay)
        candidates = [self._next_candidate(checked) for _ in range(request.n)]
        errors = [one.error for one in candidates if one.error]
        if len(errors) == len(candidates):
            raise errors[0]
        return _run_together(candidates, monitor) if monitor else candidates

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate the next line byte by byte; an empty one is one piece.

        Text that may turn out to be the beginning of a stop string is held back, as vLLM does.
        """
        return stream_of(self.open_calls, self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        (candidate,) = await self.generate(request)
        if not candidate.token_ids:
            yield StreamPiece("", (), candidate.trace, candidate)
        grown, shown, held = "", 0, _held_back(request.sampling)
        for i, added in enumerate(await self.token_texts(candidate.token_ids)):
            grown += added
            is_last = i + 1 == len(candidate.token_ids)
            end = len(candidate.text) if is_last else max(shown, len(grown) - held)
            part = slice(i, i + 1)
            ids, trace = candidate.token_ids[part], candidate.trace[part]
            said, shown = candidate.text[shown:end], end
            yield StreamPiece(said, ids, trace, candidate if is_last else None)

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of any tokens, as if they were scripted."""
        self.open_calls.check()
        prompt = tuple(prompt_ids)
        return [
            Candidate(prompt, tuple(ids), _text(ids), _trace(len(ids), self._probability))
            for ids in continuations
        ]

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return activations in closed form.

        A token's hidden state at layer l of 4 is the bits of its byte times l + 1, and each of 2
        heads attends evenly to the token and all before it.
        """
        self.open_calls.check()
        return [_activations(ids, self._probability, inspection) for ids in texts]

    def _next_candidate(self, request: Request) -> Candidate:
        line = self._next_line(bytes(request.prompt_ids).decode(errors="replace"))
        if isinstance(line, UncertaintyError):
            return failed_candidate(request.prompt_ids, line, _SIZE)
        if isinstance(line, str):
            return _candidate(request, line, self._probability)
        return _candidate(request, line.text, line.probability)

    def _next_line(self, prompt: str) -> Line:
        lines = self._script.get(prompt) if isinstance(self._script, Mapping) else self._script
        if not lines:
            raise InvalidRequestError(f"the script has no answer to {described(prompt)}")
        number = self._used.get(prompt, 0)
        self._used[prompt] = number + 1
        return lines[number % len(lines)]

    def _identity(self) -> tuple[object, ...]:
        prompts = self._script if isinstance(self._script, Mapping) else {None: self._script}
        # By their repr, since an error equals only itself.
        script = {prompt: [repr(line) for line in lines] for prompt, lines in prompts.items()}
        return script, self._probability, self._delay

    def identity_parts(self) -> object:
        """Return the script and its probability; how long a call takes changes no answer."""
        return self._identity()[:2]


def _check_script(script: object) -> None:
    """Raise ConfigurationError for what is no script; lines that come later show on use."""
    prompts = script if isinstance(script, Mapping) else {"any prompt": script}
    for prompt, lines in prompts.items():
        if not isinstance(prompt, str):
            raise ConfigurationError(f"a prompt of the script is {described(prompt)}, not a text")
        if isinstance(lines, str) or not isinstance(lines, Sequence):
            raise ConfigurationError(
                f"the script for {prompt!r} is {described(lines)}; it must be a list of lines"
            )
        for line in lines:
            if not isinstance(line, Line):
                raise ConfigurationError(
                    f"a line of the script is {described(line)}; allowed are texts, ScriptedLine "
                    "and errors of this package"
                )


def _check(probability: float) -> None:
    if not isinstance(probability, int | float) or not 0 < probability <= 1:
        raise ConfigurationError(
            f"probability is {described(probability)}; allowed are numbers above 0 up to 1"
        )


def _candidate(request: Request, text: str, probability: float) -> Candidate:
    whole, sampling = text.encode(), request.sampling
    ids = whole[: sampling.get("max_tokens")]
    trace, reason = _trace(len(ids), probability), "stop" if len(ids) == len(whole) else "length"
    candidate = Candidate(request.prompt_ids, tuple(ids), _text(ids), trace, reason)
    if sampling.get("stop"):
        candidate = _cut_at_stop(candidate, sampling["stop"], sampling)
    if request.until or request.early_stop:
        candidate = _cut_early(candidate, request, probability)
    return candidate


@cache
def _statistics(probability: float) -> Floats:
    """Return the exact statistics of one token, [7, 1], in the order of `TokenTrace`."""
    others = _SIZE - 1
    rest = (1.0 - probability) / others
    support = _SIZE if rest else 1
    log, log_rest = math.log(probability), math.log(rest) if rest else 0.0
    mean = probability * log + others * rest * log_rest
    square = probability * log**2 + others * rest * log_rest**2
    values = [
        log,
        max(-mean, 0.0),
        max(square - mean**2, 0.0),
        (log + others * log_rest) / support,
        probability**0.5 + others * rest**0.5,
        probability**0.25 + others * rest**0.25,
        support,
    ]
    return np.array(values)[:, np.newaxis]


def _trace(tokens: int, probability: float) -> TokenTrace:
    logprob, *others = np.repeat(_statistics(probability), tokens, axis=1)
    return TokenTrace(_SIZE, logprob, np.ones(tokens, np.int64), *others)


def _activations(ids: Sequence[int], probability: float, inspection: Inspection) -> Activations:
    bits = np.unpackbits(np.array(ids, np.uint8)[:, np.newaxis], axis=1).astype(np.float32)
    layers = layer_numbers(inspection, _LAYERS)
    even = np.tril(np.ones((len(ids), len(ids)), np.float32))
    even /= even.sum(-1, keepdims=True)
    maps = np.broadcast_to(even, (_LAYERS, _HEADS, *even.shape))
    return Activations(
        logprob=np.full(len(ids) - 1, np.log(probability), np.float32),
        hidden={layer: bits * (number + 1) for layer, number in layers.items()},
        attention_self=np.diagonal(maps, axis1=2, axis2=3) if inspection.attention else None,
        attention_last=maps[..., -1, :] if inspection.attention else None,
        attention_maps=maps if inspection.attention == "maps" else None,
    )


def _decode(token_ids: Sequence[int]) -> str:
    return bytes(token_ids).decode(errors="replace")


def _text(token_ids: Sequence[int]) -> str:
    """Return what a sample of these tokens says: no character of which bytes are missing."""
    try:
        return bytes(token_ids).decode()
    except UnicodeDecodeError:
        return "".join(split_text(_decode, token_ids))


def _growth(token_ids: Sequence[int]) -> Iterator[str]:
    """Return the text so far after each token."""
    return accumulate(split_text(_decode, token_ids))


def _held_back(sampling: Mapping[str, Any]) -> int:
    """Return how many characters of a growing text may be the beginning of a stop string."""
    stop = sampling.get("stop") or ()
    if sampling.get("include_stop_str_in_output"):
        return 0
    return max(map(len, (stop,) if isinstance(stop, str) else stop), default=1) - 1


def _cut(candidate: Candidate, tokens: int, reason: str) -> Candidate:
    ids = candidate.token_ids[:tokens]
    trace = candidate.trace[:tokens]
    return replace(candidate, token_ids=ids, text=_text(ids), trace=trace, finish_reason=reason)


def _cut_at_stop(
    candidate: Candidate, stop: str | Sequence[str], sampling: Mapping[str, Any]
) -> Candidate:
    strings = (stop,) if isinstance(stop, str) else stop
    least = sampling.get("min_tokens") or 0
    for tokens, text in enumerate(_growth(candidate.token_ids), 1):
        for string in strings:
            if tokens > least and text.endswith(string):
                is_shown = sampling.get("include_stop_str_in_output")
                shown = text if is_shown else text.removesuffix(string)
                return replace(_cut(candidate, tokens, "stop"), text=shown, stop_reason=string)
    return candidate


def _cut_early(candidate: Candidate, request: Request, probability: float) -> Candidate:
    """Cut a candidate where `until` or the early stop of its request ends it."""
    if (until := request.until) is not None:
        for tokens, text in enumerate(_growth(candidate.token_ids), 1):
            if until(text):
                candidate = _cut(candidate, tokens, "boundary")
                break
    if (rule := request.early_stop) is not None and len(candidate.token_ids) >= rule.window:
        _, entropy, _, mean_logprob, *_ = _statistics(probability)[:, 0]  # of every token
        value = entropy if rule.statistic == "entropy" else mean_logprob + math.log(_SIZE)
        if value > rule.above:
            candidate = _cut(candidate, rule.window, "early_stop")
    return candidate


def _run_together(candidates: list[Candidate], monitor: SampleMonitor) -> list[Candidate]:
    """Let the candidates run side by side, and abort those that the monitor says to."""
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
