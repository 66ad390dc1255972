"""One look inside the model serves all methods that want one."""

from types import SimpleNamespace

import numpy as np
import pytest

from uq_llm_integrations.backends.scripted import ScriptedBackend
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.methods.fitted.head import UncertaintyHead
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Inspection, Request
from uq_llm_integrations.strategies.best_of_n import Single
from uq_llm_integrations.strategies.drive import drive

METHODS = ("rauq", "attention_score", "mahalanobis", "ppl_md", "uhead", "eigen_score")


class Watched(ScriptedBackend):
    """Remembers what was looked at."""

    def __init__(self, script):
        super().__init__(script)
        self.looks = []

    async def inspect_all(self, texts, inspection):
        self.looks.append((len(texts), inspection))
        return await super().inspect_all(texts, inspection)


@pytest.fixture(scope="module")
def fits() -> dict:
    rng = np.random.default_rng(3)
    origin, texts = {"model": "scripted"}, rng.normal(size=(60, 8))
    density = DensityFit.fit(texts, layer=3, perplexities=rng.random(60), **origin)
    head = UncertaintyHead.fit(texts, texts[:, 0] > 0, layer=2, **origin)
    return {"density": density, "head": head}


def scored(methods, n=3, **method_options):
    backend = Watched(["Oslo", "Rome", "Bern!"])
    request = Request(
        (63,),
        n,
        sampling={"max_tokens": 9},
        method_options=MethodOptions(layer=1, **method_options),
    )
    return drive(Single(), request, backend, methods), backend.looks


def test_candidates_pass_through_the_model_once_for_all_methods(fits):
    result, looks = scored(METHODS, **fits)
    assert looks == [(3, Inspection((3, 2, 1), "bands"))]
    without = scored(["perplexity"], **fits)[0].usage
    assert result.usage.forward_passes == without.forward_passes + 1


@pytest.mark.parametrize("n", [1, 3])
def test_scores_are_those_of_a_pass_for_each(fits, n):
    together, _ = scored(METHODS, n, **fits)
    for name in METHODS:
        alone, looks = scored([name], n, **fits)
        assert len(looks) == 1
        for ours, own in zip(together.scores, alone.scores, strict=True):
            assert ours[name] == own[name]
            assert ours[name].value is not None


def test_samples_drawn_for_one_candidate_have_a_look_of_their_own(fits):
    _, looks = scored(METHODS, 1, samples=4, **fits)
    assert looks == [(1, Inspection((3, 2), "bands")), (4, Inspection((1,)))]


def test_a_look_that_one_method_spoils_is_left_to_each(fits):
    """There is no layer 9, so the density's own look fails, and no other's."""
    missing = SimpleNamespace(layer=9, has_background=False, has_ranks=False)
    names = ["rauq", "mahalanobis", "uhead"]
    result, _ = scored(names, density=missing, head=fits["head"])
    expected, _ = scored(["rauq", "uhead"], head=fits["head"])
    for ours, own in zip(result.scores, expected.scores, strict=True):
        assert "there is no layer 9" in ours["mahalanobis"].reason
        assert ours["rauq"] == own["rauq"] and ours["uhead"] == own["uhead"]


def test_whole_maps_serve_methods_that_read_a_band_of_them():
    class Mapper:
        inspection = Inspection(attention="maps")
        top_logprobs = 0

        def doubt(self, candidate, seen):
            return float(np.trace(seen.attention_maps[0, 0]))

    result, looks = scored(["uhead", "rauq"], head=Mapper())
    assert looks == [(3, Inspection(attention="maps"))]
    alone, _ = scored(["rauq"])
    assert result.scores[0]["rauq"] == alone.scores[0]["rauq"]
    assert result.scores[0]["uhead"].value == pytest.approx(sum(1 / n for n in range(1, 6)))
