"""What a method is: its estimator, what it needs, direction, level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from uq_llm_integrations.records import Candidate, Floats, TokenTrace

Need = Literal["logprob", "entropy", "distribution", "evidence"]
Own = Callable[[Candidate, Mapping[str, Any]], float | None]
Category = Literal["logprob", "sampling", "hidden state", "attention", "prompting"]


@dataclass(frozen=True)
class Method:
    """One uncertainty method.

    `needs` is what it reads of a trace: the log-probabilities of the tokens, the entropies, or the
    whole distributions. The latter have `exact` and `bounds`, formulas for one value a token from
    the probe's sums and from the top k. A method that needs `evidence` names what must be gathered
    beside the trace, and has an estimator with `options`, or `own`, a function of the candidate and
    of what was gathered. `sign` turns lm-polygraph's value so that higher is more uncertain.
    """

    name: str
    alias: str | None
    estimator: str
    needs: Need
    level: Literal["sequence", "token"]
    reference: str
    summary: str
    sign: Literal[1, -1] = 1
    exact: Callable[[TokenTrace], Floats] | None = None
    bounds: Callable[[TokenTrace], tuple[Floats, Floats]] | None = None
    category: Category = "logprob"
    evidence: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Own | None = None

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the backend (internals) or the assessment must have (density, background, head)."""
        found = {_REQUIRED[name] for name in self.evidence if name in _REQUIRED}
        return tuple(sorted({part for parts in found for part in parts}))

    @property
    def cost(self) -> str:
        """What a score costs beside the generation of the answer."""
        costs = [words for start, words in _COSTS.items() if self._gathers(start)]
        return ", ".join(costs) or "nothing"

    def _gathers(self, start: str) -> bool:
        return any(name.startswith(start) for name in self.evidence)


def evidence_method(
    name: str,
    alias: str,
    estimator: str,
    category: Category,
    evidence: str,
    reference: str,
    summary: str,
    **more: Any,
) -> Method:
    """Return a method that needs more than a trace; `evidence` has names between spaces."""
    return Method(
        name,
        alias,
        estimator,
        "evidence",
        more.pop("level", "sequence"),
        reference,
        summary,
        category=category,
        evidence=tuple(evidence.split()),
        **more,
    )


_REQUIRED: dict[str, tuple[str, ...]] = {
    "attention_self": ("internals",),
    "attention_weights_eliciting_prompt": ("internals",),
    "sample_embeddings": ("internals",),
    "embeddings_decoder": ("internals", "density"),
    "background": ("background",),
    "head_embedding": ("internals", "head"),
}

_COSTS = {
    "sample": "samples",
    "semantic": "entailment of each pair of samples",
    "concat": "entailment of each sample",
    "greedy_sentence": "similarity of each sample",
    "token_similarity": "similarity for each token",
    "sample_token_similarity": "similarity for each token of each sample",
    "greedy_lm": "one pass without the prompt",
    "attention": "one pass",
    "embeddings": "one pass",
    "head": "one pass",
    "p_true": "one pass of another prompt",
    "stated_confidence_2s": "one more answer",
}
