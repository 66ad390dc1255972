"""One sample while it grows: its tokens, its text, and where it ends. No model is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uq_llm_integrations.backends.huggingface.loading import Ends
from uq_llm_integrations.backends.huggingface.sampling import HFSampling
from uq_llm_integrations.backends.huggingface.trace import empty_trace, joined
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, EarlyStop, Request, TokenTrace

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"

# So many tokens of the prompt tell how the first token's text begins, as in vLLM.
_CONTEXT = 5


class GrowingText:
    """The text of tokens as they come; a character comes with the token that completes it."""

    def __init__(self, decode: Callable[[list[int]], str], prompt_ids: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._start, self._read = 0, len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that a token adds."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        after = self._decode(self._ids[self._start :])
        if after.endswith(_INCOMPLETE) or len(after) <= len(before):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return after[len(before) :]


class Sample:
    """One sample of a request. Its finish reason is None while it grows."""

    def __init__(
        self,
        number: int,
        request: Request,
        sampling: HFSampling,
        ends: Ends,
        decode: Callable[[list[int]], str],
        room: int,
    ) -> None:
        """Begin the sample of this number; `room` is how many tokens it may get at most."""
        self.number = number
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.error: EngineError | None = None
        self._stop_reason: int | str | None = None
        self._request, self._sampling, self._ends, self._room = request, sampling, ends, room
        self._growing = GrowingText(decode, request.prompt_ids)
        self._traces: list[TokenTrace] = []
        self._uncertainties: list[float] = []

    def add(self, token: int, trace: TokenTrace) -> None:
        """Take the token drawn next and its distribution, a trace of one; it may end here."""
        if np.isnan(trace.logprob[0]):
            self.error = EngineError(
                f"the model's logits of token {len(self.token_ids)} are not numbers; "
                "a wider dtype may help"
            )
            self.finish_reason = "error"
        elif self._is_too_uncertain(trace):
            self.finish_reason = "early_stop"
        else:
            self._append(token, trace)
            until = self._request.until
            if until is not None and until(self.text):
                self.finish_reason, self._stop_reason = "boundary", None

    def leave(self) -> None:
        """End the sample because it is needed no longer."""
        self.finish_reason = "abort"

    @property
    def shown(self) -> str:
        """The text that no stop string can take back any more."""
        if self.finish_reason or not self._sampling.stop or self._shows_stop:
            return self.text
        return self.text[: max(0, len(self.text) - max(map(len, self._sampling.stop)) + 1)]

    def trace_from(self, first: int, size: int) -> TokenTrace:
        """Return the trace of the tokens from `first` on; `size` is the vocabulary's."""
        return joined(self._traces[first:] or [empty_trace(size, self._request.top_logprobs)])

    def outcome(self, size: int) -> Candidate | EngineError:
        """Return the candidate, or why there is none; `size` is the vocabulary's."""
        if self.error:
            return self.error
        return Candidate(
            prompt_ids=self._request.prompt_ids,
            token_ids=tuple(self.token_ids),
            text=self.text,
            trace=self.trace_from(0, size),
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
        )

    @property
    def _shows_stop(self) -> bool:
        return self._sampling.include_stop_str_in_output

    def _is_too_uncertain(self, trace: TokenTrace) -> bool:
        rule = self._request.early_stop
        if rule is None:
            return False
        self._uncertainties.append(_uncertainty(trace, rule))
        last = self._uncertainties[-rule.window :]
        return len(last) == rule.window and float(np.mean(last)) > rule.above

    def _append(self, token: int, trace: TokenTrace) -> None:
        self.token_ids.append(token)
        self.logprobs.append(float(trace.logprob[0]))
        self._traces.append(trace)
        if self._is_end(token):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self._room:
            self.finish_reason = "length"
        if self.finish_reason != "stop" or self._shows_stop:
            self._read(self._growing.add(token))

    def _is_end(self, token: int) -> bool:
        """Return whether a token ends the sample; all but the end-of-text token are told."""
        ignores = self._sampling.ignore_eos
        if token == self._ends.eos and not ignores:
            return True
        if token in self._sampling.stop_token_ids or (token in self._ends.others and not ignores):
            self._stop_reason = token
            return True
        return False

    def _read(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        if not piece or len(self.token_ids) <= self._sampling.min_tokens:
            return
        found = [
            (place + len(string), place, string)
            for string in self._sampling.stop
            if (place := self.text.find(string, max(0, before - len(string) + 1))) >= 0
        ]
        if found:
            end, place, string = min(found, key=lambda one: one[0])
            self.text = self.text[: end if self._shows_stop else place]
            self.finish_reason, self._stop_reason = "stop", string


def _uncertainty(trace: TokenTrace, rule: EarlyStop) -> float:
    assert trace.entropy is not None
    assert trace.mean_logprob is not None and trace.support is not None
    if rule.statistic == "entropy":
        return float(trace.entropy[0])
    return float(trace.mean_logprob[0] + np.log(trace.support[0]))
