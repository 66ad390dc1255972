"""The state of a step-wise generation: enough to go on from, and to be saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from uq_llm_integrations.errors import ConfigurationError, UncertaintyError
from uq_llm_integrations.records import Candidate, Score, TokenTrace, Usage

INCOMPLETE = "\ufffd"
"""What a character is decoded as whose last tokens have not come."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step that was kept: its text and tokens, its score, and how many it was chosen from."""

    text: str
    token_ids: tuple[int, ...]
    score: Score
    candidates: int


@dataclass(frozen=True, eq=False)
class StepState:
    """The steps kept so far. `is_finished` says that no other can follow.

    Example:
        >>> state = StepState.from_json(StepState((1, 2)).to_json())
        >>> state.prompt_ids, state.is_finished
        ((1, 2), False)
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...] = ()
    trace: TokenTrace | None = None
    text: str = ""
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    held: str = ""
    """What follows the text unless the next step takes it back: the beginning of a stop string, or
    of a character."""
    error: UncertaintyError | None = None
    """What ended the steps, where the last one failed; it is not saved."""

    @property
    def is_finished(self) -> bool:
        """Whether the generation has come to an end."""
        return self.finish_reason is not None

    def with_step(
        self, chosen: Candidate, text: str, score: Score, usage: Usage, n: int
    ) -> StepState:
        """Return the state after another step; `text` is that of all tokens."""
        step = Step(text[len(self.text) :], chosen.token_ids, score, n)
        return replace(
            self,
            token_ids=self.token_ids + chosen.token_ids,
            trace=self.trace.joined(chosen.trace) if self.trace else chosen.trace,
            text=text,
            held="",
            steps=(*self.steps, step),
            usage=self.usage + usage,
        )

    def holding_back(self, stop: Sequence[str]) -> StepState:
        """Return the state with the end of its last step held back that may be taken back."""
        text = _settled(self.text.rstrip(INCOMPLETE), stop)
        held = self.text[len(text) :]
        last = replace(self.steps[-1], text=self.steps[-1].text.removesuffix(held))
        return replace(self, text=text, held=held, steps=(*self.steps[:-1], last))

    def candidate(self) -> Candidate:
        """Return all steps as one candidate."""
        trace = self.trace or TokenTrace(0, np.zeros(0))
        return Candidate(
            self.prompt_ids,
            self.token_ids,
            self.text + self.held,
            trace,
            self.finish_reason or "boundary",
            self.stop_reason,
            error=self.error,
        )

    def to_json(self) -> str:
        """Return the state as JSON; the top k log-probabilities are left out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "error"}
        plain |= {
            "usage": asdict(self.usage),
            "trace": _plain_trace(self.trace),
            "steps": [asdict(step) for step in self.steps],
        }
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> StepState:
        """Return a saved state; raise ConfigurationError for any other text."""
        try:
            plain = json.loads(text)
            steps = [
                Step(s["text"], tuple(s["token_ids"]), Score(**s["score"]), s["candidates"])
                for s in plain.pop("steps")
            ]
            plain |= {name: tuple(plain[name]) for name in ("prompt_ids", "token_ids")}
            plain |= {"usage": Usage(**plain["usage"]), "trace": _trace(plain["trace"])}
            return cls(**plain, steps=tuple(steps))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigurationError(f"this is no saved state: {error!r}") from error


def _settled(text: str, stop: Sequence[str]) -> str:
    """Return the text without an end that is the beginning of a stop string."""
    longest = max(map(len, stop), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(one.startswith(end) and one != end for one in stop):
            return text[:-length]
    return text


def _plain_trace(trace: TokenTrace | None) -> dict[str, object] | None:
    if trace is None:
        return None
    values = {f.name: getattr(trace, f.name) for f in fields(trace)}
    del values["top_ids"], values["top_logprobs"]
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _trace(plain: dict[str, object] | None) -> TokenTrace | None:
    if plain is None:
        return None
    arrays = {
        name: np.array(value, np.int64 if name == "rank" else np.float64)
        for name, value in plain.items()
        if isinstance(value, list)
    }
    return TokenTrace(**{**plain, **arrays})  # type: ignore[arg-type]  # what no trace takes raises
