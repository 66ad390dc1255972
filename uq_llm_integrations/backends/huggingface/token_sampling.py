"""Sampling parameters, and one sample while it grows: where it ends. No model is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from uq_llm_integrations.backends.huggingface.loading import EndTokens
from uq_llm_integrations.backends.sampling_values import check_sampling
from uq_llm_integrations.backends.token_statistics import empty_trace, join_traces
from uq_llm_integrations.backends.token_texts import IncrementalText
from uq_llm_integrations.errors import EngineError, InvalidRequestError
from uq_llm_integrations.records import Candidate, Request, StopRule, TokenTrace

# Below this vLLM takes a temperature as 0.
_LOWEST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class HFSampling:
    """The sampling parameters that this backend has, by vLLM's names and with vLLM's defaults.

    A `max_tokens` of None sets no limit: `check_request` puts in what the context leaves.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    include_stop_str_in_output: bool = False

    @classmethod
    def of(cls, sampling: Mapping[str, Any]) -> HFSampling:
        """Read a request's `sampling`; None stands for the default.

        Raises InvalidRequestError for a name that this backend lacks and for a value that can never
        work.
        """
        allowed = {one.name for one in fields(cls)}
        unknown = sorted(sampling.keys() - allowed)
        if unknown:
            raise InvalidRequestError(
                f"the Hugging Face backend does not support {', '.join(unknown)}; "
                f"allowed are {', '.join(sorted(allowed))}"
            )
        checked = check_sampling(sampling)
        values = {name: value for name, value in checked.items() if value is not None}
        _check_values(values)
        for name in ("stop", "stop_token_ids"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature < _LOWEST_TEMPERATURE


class Sample:
    """One sample of a request. Its finish reason is None while it grows."""

    def __init__(
        self,
        number: int,
        request: Request,
        sampling: HFSampling,
        ends: EndTokens,
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
        self._incremental = IncrementalText(decode, request.prompt_ids)
        self._traces: list[TokenTrace] = []
        self._uncertainties: list[float] = []

    def add(self, token: int, trace: TokenTrace) -> None:
        """Add the next token and its distribution, a trace of one; the sample may end here."""
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

    def abort(self) -> None:
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
        return join_traces(self._traces[first:] or [empty_trace(size, self._request.top_logprobs)])

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
            self._read(self._incremental.add(token))

    def _is_end(self, token: int) -> bool:
        """Return whether a token ends the sample; all but the end-of-text token
        are its stop reason.
        """
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
            (start + len(string), start, string)
            for string in self._sampling.stop
            if (start := self.text.find(string, max(0, before - len(string) + 1))) >= 0
        ]
        if found:
            end, start, string = min(found, key=lambda one: one[0])
            self.text = self.text[: end if self._shows_stop else start]
            self.finish_reason, self._stop_reason = "stop", string


def _check_values(values: Mapping[str, Any]) -> None:
    for name in ("top_p", "repetition_penalty"):
        if values.get(name, 1.0) == 0:
            raise InvalidRequestError(f"{name} is 0; it must be more")


def _uncertainty(trace: TokenTrace, rule: StopRule) -> float:
    assert trace.entropy is not None
    assert trace.mean_logprob is not None and trace.support is not None
    if rule.statistic == "entropy":
        return float(trace.entropy[0])
    return float(trace.mean_logprob[0] + np.log(trace.support[0]))
