"""One forward pass serves all methods that read activations."""

from types import SimpleNamespace

import numpy as np
import pytest

from uq_llm_integrations import (
    DensityFit,
    Inspection,
    MethodOptions,
    Request,
    Result,
    ScriptedBackend,
    UncertaintyHead,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.scoring import add_evidence_scores

METHODS = ("rauq", "attention_score", "mahalanobis", "ppl_md", "uhead", "eigen_score")


class Recorder(ScriptedBackend):
    """Remembers how many texts were inspected, and what for."""

    def __init__(self, script):
        super().__init__(script)
        self.inspections = []

    async def inspect_all(self, texts, inspection):
        self.inspections.append((len(texts), inspection))
        return await super().inspect_all(texts, inspection)


@pytest.fixture(scope="module")
def fits() -> dict:
    rng = np.random.default_rng(3)
    origin, texts = {"model": "scripted"}, rng.normal(size=(60, 8))
    density = DensityFit.fit(texts, layer=3, mean_nlls=rng.random(60), **origin)
    head = UncertaintyHead.fit(texts, texts[:, 0] > 0, layer=2, **origin)
    return {"density": density, "head": head}


async def scored(methods, n=3, **options) -> tuple[Result, list]:
    backend = Recorder(["Oslo", "Rome", "Bern!"])
    metered, request = MeteredBackend(backend), Request((63,), n, sampling={"max_tokens": 9})
    candidates = tuple(await metered.generate(request))
    result = Result(candidates, ({},) * n, metered.usage)
    options = MethodOptions(layer=1, **options)
    result = await add_evidence_scores(result, metered, request, methods, options)
    return result, backend.inspections


async def test_candidates_pass_through_the_model_once_for_all_methods(fits):
    result, inspections = await scored(METHODS, **fits)
    assert inspections == [(3, Inspection((3, 2, 1), "bands"))]
    assert result.usage.forward_passes == len("Bern!") + 1


@pytest.mark.parametrize("n", [1, 3])
async def test_scores_are_those_of_a_pass_for_each(fits, n):
    jointly, _ = await scored(METHODS, n, **fits)
    for name in METHODS:
        alone, inspections = await scored([name], n, **fits)
        assert len(inspections) == 1
        for ours, own in zip(jointly.scores, alone.scores, strict=True):
            assert ours[name] == own[name]
            assert ours[name].value is not None


async def test_samples_generated_for_one_candidate_have_a_pass_of_their_own(fits):
    _, inspections = await scored(METHODS, 1, samples=4, **fits)
    assert inspections == [(1, Inspection((3, 2, 1), "bands")), (4, Inspection((1,)))]


async def test_a_pass_that_one_method_spoils_is_left_to_each(fits):
    """There is no layer 9, so the density's own pass fails, and no other's."""
    missing = SimpleNamespace(layer=9, has_background=False, has_ranks=False)
    names = ["rauq", "mahalanobis", "uhead"]
    result, _ = await scored(names, density=missing, head=fits["head"])
    expected, _ = await scored(["rauq", "uhead"], head=fits["head"])
    for ours, own in zip(result.scores, expected.scores, strict=True):
        assert "there is no layer 9" in ours["mahalanobis"].reason
        assert ours["rauq"] == own["rauq"] and ours["uhead"] == own["uhead"]


async def test_a_pass_that_fails_is_not_tried_again_for_the_same_need():
    missing = SimpleNamespace(layer=9, has_background=False, has_ranks=False)
    result, inspections = await scored(["mahalanobis", "rde"], density=missing)
    assert inspections == [(3, Inspection((9,)))]
    assert "there is no layer 9" in result.scores[0]["rde"].reason


async def test_whole_maps_serve_methods_that_read_a_band_of_them():
    class Mapper:
        inspection = Inspection(attention="maps")
        top_logprobs = 0

        def doubt(self, candidate, seen):
            return float(np.trace(seen.attention_maps[0, 0]))

    result, inspections = await scored(["uhead", "rauq"], head=Mapper())
    assert inspections == [(3, Inspection(attention="maps"))]
    alone, _ = await scored(["rauq"])
    assert result.scores[0]["rauq"] == alone.scores[0]["rauq"]
    assert result.scores[0]["uhead"].value == pytest.approx(sum(1 / n for n in range(1, 6)))
