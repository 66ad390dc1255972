"""What a method is: its estimator, what it needs, direction, level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from uq_llm_integrations.records import Candidate, Floats, TokenTrace

Need = Literal["logprob", "entropy", "distribution", "evidence"]
Level = Literal["sequence", "token", "claim"]
Own = Callable[[Candidate, Mapping[str, Any]], float | Floats | None]
Category = Literal["logprob", "sampling", "hidden state", "attention", "prompting"]


@dataclass(frozen=True)
class Method:
    """One uncertainty method.

    `needs` is what it reads of a trace: the log-probabilities of the tokens, the entropies, or the
    whole distributions. The latter have `exact` and `bounds`, formulas for one value a token from
    the probe's sums and from the top k. A method that needs `evidence` names what must be gathered
    beside the trace, and has an estimator with `options`, or `own`, a function of the candidate and
    of what was gathered, which returns a number, or one for each token or claim. `sign` turns
    lm-polygraph's value so that higher is more uncertain. A method that is not `listed` is no part
    of the catalogue but made of an estimator of the installed lm-polygraph, whose value is taken
    as it is.
    """

    name: str
    alias: str | None
    estimator: str
    needs: Need
    level: Level
    reference: str
    summary: str
    sign: Literal[1, -1] = 1
    exact: Callable[[TokenTrace], Floats] | None = None
    bounds: Callable[[TokenTrace], tuple[Floats, Floats]] | None = None
    category: Category = "logprob"
    evidence: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Own | None = None
    listed: bool = True

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the backend (internals) or the method_options must have, such as a density."""
        found = {part for name in self.evidence for part in _REQUIRED.get(name, ())}
        return tuple(sorted(found, key=lambda part: (part != "internals", part)))

    @property
    def cost(self) -> str:
        """What a score costs beside the generation of the answer."""
        costs = [words for start, words in _COSTS.items() if self._gathers(start)]
        return ", ".join(costs) or "nothing"

    def _gathers(self, start: str) -> bool:
        return any(name.startswith(start) for name in self.evidence)


def evidence_method(
    name: str,
    alias: str | None,
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
    "ranks": ("ranks",),
    "head_doubt": ("internals", "head"),
    "head_claim_doubts": ("internals", "claim head"),
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
    "greedy_tokens_alternatives": "one pass unless 10 top log-probabilities were asked for",
    "greedy_tokens_alternatives_nli": "entailment of the alternatives of each token",
    "boosted": "one pass unless enough top log-probabilities were asked for",
    "nli_to_sample_texts": "samples, entailment of each claim by each sample",
    "p_true": "one pass of another prompt",
    "p_true_claim": "for each claim",
    "stated_confidence_2s": "one more answer",
}
