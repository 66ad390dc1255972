"""A scripted model that reads its prompt, so that every log-probability has a closed form."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uq_llm_integrations import Candidate, ScriptedBackend, TokenTrace

Logprob = Callable[[str], float]
"""The log-probability of each token of any answer behind a prompt, in nats."""


class Reading(ScriptedBackend):
    """Gives each token of an answer the log-probability that a function of the prompt says."""

    def __init__(self, logprob: Logprob, script: Sequence[Any] = ("Oslo",)) -> None:
        super().__init__(list(script))
        self._logprob = logprob
        self.scored: list[str] = []
        """The prompts behind which something was scored, in their order."""

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        prompt = bytes(prompt_ids).decode()
        self.scored.append(prompt)
        found = await super().score_all(prompt_ids, continuations, top_logprobs)
        value = self._logprob(prompt)
        return [
            replace(one, trace=TokenTrace(256, np.full(len(one.token_ids), value))) for one in found
        ]


def adding(weights: dict[str, float], base: float = -10.0) -> Logprob:
    """A model that adds up the weights of the texts that stand in its prompt."""
    return lambda prompt: base + sum(one for text, one in weights.items() if text in prompt)


def knowing(fact: str, base: float = -5.0) -> Logprob:
    """A model that is sure of the answer once the prompt says a fact, however often."""
    return lambda prompt: -0.1 if fact in prompt else base
