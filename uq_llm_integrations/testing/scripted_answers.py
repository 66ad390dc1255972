"""What a scripted server answers: tokens are bytes, as in `ScriptedBackend`."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.backends.token_texts import split_text
from uq_llm_integrations.records import Floats
from uq_llm_integrations.testing.server_faults import Body

SIZE = 256
END = 0
"""The token that ends an answer; it has no text."""

MODEL_LENGTH = 4096

USAGE = {"prompt_tokens_details": {"cached_tokens": 3}}

Lines = Sequence[str] | Callable[[str], str]
"""The answers in turn, or what answers the text of a prompt."""


def probability_rows(token_ids: Sequence[int], probability: float) -> Floats:
    """Return the exact rows of tokens that have a probability each, [T, columns].

    The other tokens share the rest evenly.
    """
    rest = (1 - probability) / (SIZE - 1)
    p = np.array([probability] + [rest] * (SIZE - 1))
    logs = np.log(p)
    sums = [
        (p * logs).sum(),
        (p * logs**2).sum(),
        logs.sum(),
        (p**0.5).sum(),
        (p**0.25).sum(),
        SIZE,
    ]
    rows = np.zeros((len(token_ids), len(COLUMNS)))
    rows[:, :6], rows[:, 7] = sums, token_ids
    rows[:, 8], rows[:, 9] = math.log(probability), 1
    return rows


class ScriptedAnswers:
    """The bodies of answers to completions, with what the plugin adds to them."""

    def __init__(self, lines: Lines, *, plugin: bool, model: str, probability: float) -> None:
        self.lines, self.plugin = lines if callable(lines) else list(lines), plugin
        self.model, self.probability = model, probability
        self._answered = 0

    def line(self, body: Mapping[str, Any]) -> list[int]:
        """Return the tokens of the next answer."""
        self._answered += 1
        if callable(self.lines):
            prompt = body["prompt"]
            text = self.lines(prompt if isinstance(prompt, str) else shown(prompt))
        else:
            text = self.lines[(self._answered - 1) % len(self.lines)]
        return [*text.encode(), END]

    def whole(self, body: Mapping[str, Any]) -> Body:
        """Return the body of an answer in one piece."""
        if body.get("echo"):
            text = shown(body["prompt"])
            return {"choices": [{"index": 0, "text": text, "finish_reason": "length"}]}
        choices = [self._choice(body, index) for index in range(body.get("n", 1))]
        return {"model": self.model, "choices": choices, "usage": USAGE}

    def part(self, body: Mapping[str, Any], ids: Sequence[int], first: int) -> Body:
        """Return a choice with some tokens, the first of which is the answer's `first`."""
        part = {"index": 0, "text": shown(ids), "token_ids": [*ids], "finish_reason": None}
        if self.plugin and body.get("uncertainty") == "rows":
            part["uncertainty"] = self._uncertainty(ids, first)
        if (k := body.get("logprobs")) is not None:
            part["logprobs"] = self._logprobs(ids, k)
        return part

    def _choice(self, body: Mapping[str, Any], index: int) -> Body:
        line = self.line(body)
        ids = line[: body["max_tokens"]]
        choice = self.part(body, ids, 0) | {"index": index}
        choice["finish_reason"] = "stop" if ids == line else "length"
        prompt = body["prompt"]
        choice["prompt_token_ids"] = [*encoded({}, prompt)] if isinstance(prompt, str) else prompt
        first = body.get("uncertainty_from")
        if self.plugin and first is not None:
            choice["prompt_uncertainty"] = self._uncertainty(prompt[first:], first)
        if (k := body.get("prompt_logprobs")) is not None:
            choice["prompt_logprobs"] = [None, *(self._prompt_row(one, k) for one in prompt[1:])]
        return choice

    def _uncertainty(self, ids: Sequence[int], first: int) -> Body:
        rows = probability_rows(ids, self.probability)
        data = base64.b64encode(rows.astype("<f8").tobytes()).decode()
        return {"version": 1, "exact": True, "reason": None, "first": first, "rows": data}

    def _logprobs(self, ids: Sequence[int], k: int) -> Body:
        own, rest = self._logprob_pair
        tops = [
            {f"token_id:{one}": own} | {f"token_id:{other}": rest for other in _others(one, k)}
            for one in ids
        ]
        names = [f"token_id:{one}" for one in ids]
        return {"tokens": names, "token_logprobs": [own] * len(ids), "top_logprobs": tops}

    def _prompt_row(self, token: int, k: int) -> Body:
        own, rest = self._logprob_pair
        row = {str(token): {"logprob": own, "rank": 1}}
        others = enumerate(_others(token, k), 2)
        return row | {str(one): {"logprob": rest, "rank": rank} for rank, one in others}

    @property
    def _logprob_pair(self) -> tuple[float, float]:
        return math.log(self.probability), math.log((1 - self.probability) / (SIZE - 1))


def _others(token: int, k: int) -> list[int]:
    return [one for one in range(SIZE) if one != token][: k - 1]


def refusal(body: Mapping[str, Any]) -> str | None:
    """Return what vLLM says of what it does not take."""
    if any(one >= SIZE for one in body.get("stop_token_ids") or ()):
        return f"token_id(s) contain out-of-vocab token ids. Vocabulary size: {SIZE}"
    if (body.get("logprobs") or 0) > SIZE:
        return "Requested sample logprobs, which is greater than max allowed: 20"
    if body.get("temperature") == 0 and body.get("n", 1) > 1:
        return "n must be 1 when using greedy sampling"
    if body.get("max_tokens", 0) > MODEL_LENGTH:
        return "max_tokens=9 cannot be greater than max_model_len=4096. Please request fewer"
    return None


def encoded(body: Mapping[str, Any], text: str | None) -> bytes:
    """Return the tokens of the messages of a body, or else of a text."""
    if "messages" in body:
        return "\n".join(f"{one['role']}: {one['content']}" for one in body["messages"]).encode()
    return (text or "").encode()


def shown(ids: Iterable[int]) -> str:
    """Return the text of tokens."""
    return bytes(one for one in ids if one != END).decode(errors="replace")


def texts_of(ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds."""
    return split_text(shown, ids)
