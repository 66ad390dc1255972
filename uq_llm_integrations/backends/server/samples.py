"""One sample as its parts come: what it has so far, and where it ends before the server ends it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uq_llm_integrations.backends.server.contact import Facts
from uq_llm_integrations.backends.server.replies import Part, joined
from uq_llm_integrations.backends.token_texts import TokenReader, read_texts
from uq_llm_integrations.records import Candidate, Request, StopRule, StreamPiece, TokenTrace


@dataclass(frozen=True)
class Ending:
    """Why a sample ends, and with how many tokens."""

    reason: str
    tokens: int
    is_own: bool = False
    """Whether the server has ended it."""


class Sample:
    """The tokens, the text and the traces of one sample so far."""

    def __init__(self, request: Request, facts: Facts, texts: TokenReader) -> None:
        self._request, self._facts, self._reader = request, facts, texts
        self._traces: list[TokenTrace] = []
        self._stop_reason: int | str | None = None
        self._totals = [0.0]
        """Sums of the early stop's statistic before each token and behind the last."""
        self._seen, self._seen_text = 0, ""
        self.token_ids: list[int] = []
        self.text = ""
        self.logprobs: list[float] = []

    def add(self, part: Part) -> None:
        """Take what came next."""
        self._seen, self._seen_text = len(self.token_ids), self.text
        self.token_ids += part.token_ids
        self.text += part.text
        self.logprobs += part.trace.logprob.tolist()
        self._traces.append(part.trace)
        self._stop_reason = part.stop_reason
        if self._request.early_stop:
            self._add_totals(part, self._request.early_stop)

    def piece(self) -> StreamPiece:
        """Return what came last as a piece of a stream."""
        ids = tuple(self.token_ids[self._seen :])
        return StreamPiece(self.text[len(self._seen_text) :], ids, self._traces[-1])

    def last_piece(self, candidate: Candidate) -> StreamPiece:
        """Return what came last as the piece that ends the stream."""
        text = candidate.text[len(self._seen_text) :]
        ids, trace = candidate.token_ids[self._seen :], candidate.trace[self._seen :]
        return StreamPiece(text, ids, trace, candidate)

    async def early_ending(self) -> Ending | None:
        """Return how the request itself ends the sample here, None where it goes on."""
        stop, boundary = self._early_stop(), await self._boundary(self._request.until)
        if boundary is not None and (stop is None or boundary <= stop):
            return Ending("boundary", boundary)
        return None if stop is None else Ending("early_stop", stop)

    async def candidate(self, ending: Ending, cached: int = 0) -> Candidate:
        """Return the sample with so many tokens."""
        trace = joined(self._traces, self._facts.size)
        return Candidate(
            prompt_ids=self._request.prompt_ids,
            token_ids=tuple(self.token_ids[: ending.tokens]),
            text=await self._text(ending.tokens),
            trace=trace if ending.tokens == len(self.token_ids) else trace[: ending.tokens],
            finish_reason=ending.reason,
            stop_reason=self._stop_reason if ending.is_own else None,
            cached_tokens=cached,
        )

    def _add_totals(self, part: Part, rule: StopRule) -> None:
        values, trace = None, part.trace
        if rule.statistic == "entropy":
            values = trace.entropy
        elif trace.mean_logprob is not None and trace.support is not None:
            values = trace.mean_logprob + np.log(trace.support)
        if values is None:  # what is not known ends nothing
            values = np.full(len(part.token_ids), math.nan)
        for value in values.tolist():
            self._totals.append(self._totals[-1] + value)

    def _early_stop(self) -> int | None:
        """Return how many tokens came before the one with which a window's mean is too high."""
        rule = self._request.early_stop
        if rule is None:
            return None
        for index in range(max(self._seen, rule.window - 1), len(self.token_ids)):
            total = self._totals[index + 1] - self._totals[index + 1 - rule.window]
            if total / rule.window > rule.above:
                return index
        return None

    async def _boundary(self, until: Callable[[str], bool] | None) -> int | None:
        """Return how many tokens there are up to the boundary, None where it was not reached."""
        if until is None or not until(self.text):
            return None
        if self._is_clear:
            return len(self.token_ids)
        texts = await self._texts()
        for tokens in range(self._seen + 1, len(texts)):
            if until("".join(texts[:tokens])):
                return tokens
        return len(texts)

    @property
    def _is_clear(self) -> bool:
        """Whether the last token is known to have added the last text, and no text is held back."""
        return len(self.token_ids) == self._seen + 1 and not self._request.sampling.get("stop")

    async def _text(self, tokens: int) -> str:
        if tokens == len(self.token_ids):
            return self.text
        if tokens == self._seen and not self._request.sampling.get("stop"):
            return self._seen_text
        return "".join((await self._texts())[:tokens])

    async def _texts(self) -> list[str]:
        """Return the text that each token adds."""
        ids, nothing = tuple(self.token_ids), joined((), self._facts.size)
        whole = Candidate(self._request.prompt_ids, ids, self.text, nothing)
        return (await read_texts(self._reader, whole)).latest
