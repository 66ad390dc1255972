"""The state of a step-wise generation: enough to go on from, and to be saved."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Candidate, Score, TokenTrace, Usage


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
            steps=(*self.steps, step),
            usage=self.usage + usage,
        )

    def candidate(self) -> Candidate:
        """Return all steps as one candidate."""
        trace = self.trace or TokenTrace(0, np.zeros(0))
        return Candidate(
            self.prompt_ids,
            self.token_ids,
            self.text,
            trace,
            self.finish_reason or "boundary",
            self.stop_reason,
        )

    def to_json(self) -> str:
        """Return the state as JSON; the top k log-probabilities are left out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
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
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"this is no saved state: {error!r}") from error


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
