"""Every method of the catalogue on every backend that claims it, with the real model."""

import numpy as np
import pytest

from tests.methods.helpers import add_scores
from uq_llm_integrations import (
    METHODS,
    EmbeddingSimilarity,
    HuggingFaceBackend,
    HybridBackend,
    HybridUncertaintyGenerator,
    MethodOptions,
    Request,
    ServedJudge,
    fit_density,
    fit_head,
    missing_requirements,
)
from uq_llm_integrations.calibration import Origin, fit_calibration

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
PLACES = (
    "Spain Italy Peru Chad Fiji Cuba Iran Oman Laos Mali Togo Chile Egypt Ghana India Japan Kenya "
    "Libya Malta Nepal"
)
EXAMPLES = [f"What is the capital of {place}?" for place in PLACES.split()]
MAY_BE_SILENT = {"Verbalized1S", "Verbalized2S", "Linguistic1S", "RDE"}
"""Those that read a number or a phrase that the answer need not have, and the one that needs more
than a hundred texts to be fitted."""

NEEDS_ANOTHER_PACKAGE = {"UHeadClaim"}


class SparingJudge(ServedJudge):
    """Lets the model judge few pairs only, since the alternatives of all tokens make hundreds."""

    async def entailments(self, pairs, question, backend):
        if len(pairs) <= 16:
            return await super().entailments(pairs, question, backend)
        return np.array([[1.0, 0.0, 0.0] if a == b else [0.2, 0.3, 0.5] for a, b in pairs])


@pytest.fixture(scope="module")
def hugging_face():
    with HuggingFaceBackend("smollm2") as backend:
        yield backend


@pytest.fixture(scope="module", params=["vllm", "huggingface", "hybrid"])
def each(request, backend, hugging_face):
    """Each kind of backend."""
    hybrid = HybridBackend(backend, hugging_face)
    return {"vllm": backend, "huggingface": hugging_face, "hybrid": hybrid}[request.param]


@pytest.fixture(scope="module")
def method_options(hugging_face) -> MethodOptions:
    """Fits that serve all backends, which run the same model."""
    density = fit_density(hugging_face, EXAMPLES, background=EXAMPLES, max_tokens=4)
    head = fit_head(hugging_face, EXAMPLES, [i % 3 == 0 for i in range(20)], max_tokens=4)
    judges = {"entailment": SparingJudge(), "similarity": EmbeddingSimilarity()}
    calibration = fit_calibration(
        {"entropy": range(20)}, [i < 12 for i in range(20)], origin=Origin("smollm2", "1")
    )
    fits = {"density": density, "head": head, "calibration": calibration}
    return MethodOptions(samples=2, span="(?s).+", **fits, **judges)


@pytest.fixture(scope="module")
def scores(each, method_options) -> dict:
    """All scores of one answer, which has no end of its own and so at least two samples."""
    ids = each.run(each.encode(QUESTION, chat=True))
    sampling = {"max_tokens": 6, "temperature": 0.7, "seed": 1}
    request = Request(ids, sampling=sampling, text=QUESTION)
    missing = missing_requirements(None, each, method_options)
    served = [name for name, lacks in missing.items() if lacks is None]
    assert set(METHODS) - set(served) == NEEDS_ANOTHER_PACKAGE
    candidates = each.run(each.generate(request))
    return each.run(add_scores(candidates, served, each, request, method_options)).scores[0]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NEEDS_ANOTHER_PACKAGE])
def test_a_method_gives_a_finite_value_or_says_why_not(name, scores):
    score = scores[name]
    assert score.is_known or (name in MAY_BE_SILENT and score.reason), score.reason


def test_one_call_generates_samples_and_scores_them(backend):
    generator = HybridUncertaintyGenerator(backend=backend, chat=True, max_tokens=6, seed=1)
    samples = generator.generate_with_uncertainty(QUESTION, 2, ["entropy", "rauq", "eigen_score"])
    assert len({sample["text"] for sample in samples}) == 2
    for sample in samples:
        assert all(sample["uncertainty"]["scores"].values())
