"""Heads of the `luh` package, here a stand-in with the same interface."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from uq_llm_integrations import (
    METHODS,
    Activations,
    Candidate,
    ConfigurationError,
    Inspection,
    LuhHead,
    MethodOptions,
    MethodUnavailableError,
    MissingDependencyError,
    ModelNotFoundError,
    Request,
    Result,
    ScriptedBackend,
    TokenTrace,
    UncertaintyHead,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.scoring import add_evidence_scores

LAYERS, HEADS, WIDTH, TOP = 3, 2, 4, 2
PROMPT, ANSWER = (5, 6, 7), (1, 2, 3, 4)
LENGTH = len(PROMPT + ANSWER)


class FeatureExtractorBasicHiddenStates:
    def __init__(self, layers):
        self._layer_nums = layers

    def __call__(self, llm_inputs, llm_outputs):
        assert type(llm_outputs["hidden_states"][-1]) is torch.Tensor
        states = [llm_outputs["hidden_states"][layer][:, :-1] for layer in self._layer_nums]
        return torch.cat(states, -1)


class FeatureExtractorBasicAttention:
    """What each token attends to itself, by each head of each layer."""

    def __call__(self, llm_inputs, llm_outputs):
        assert not hasattr(llm_outputs, "sequences")
        assert llm_inputs["attention_mask"].shape == llm_inputs["input_ids"].shape
        own = [maps.diagonal(dim1=2, dim2=3)[:, :, :-1] for maps in llm_outputs.attentions]
        return torch.cat(own, 1).transpose(1, 2)


class FeatureExtractorTokenProbabilities:
    def __init__(self, top_n, temperature=1.0):
        self.top_n, self.temperature = top_n, temperature


class FeatureExtractorOfAnotherKind:
    pass


class Linear(torch.nn.Module):
    """The sum of all features at each token, or their mean over each claim's tokens."""

    def __init__(self, model_type, *extractors):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.model_type = model_type
        self.feature_extractor = SimpleNamespace(_feature_extractors=extractors)
        self.output_attentions = any("Attention" in type(one).__name__ for one in extractors)

    def _compute_tensors(self, llm_inputs, features, attention_mask):
        assert features.shape[:2] == attention_mask.shape
        sums = features.sum(-1) * self.scale
        if self.model_type == "token":
            return sums[..., None]
        (masks,) = llm_inputs["claims"]
        return ((sums * masks).sum(1) / masks.sum(1))[None, :, None]


HIDDEN = FeatureExtractorBasicHiddenStates([1, 3])
EVERY = (HIDDEN, FeatureExtractorBasicAttention(), FeatureExtractorTokenProbabilities(TOP))


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Loads a head that the stand-in gives for a folder, and a model of three layers."""
    luh, heads = ModuleType("luh"), {}

    class AutoUncertaintyHead:
        @staticmethod
        def from_pretrained(path, base_model):
            assert base_model.config.num_hidden_layers == LAYERS
            return heads[path]

    luh.AutoUncertaintyHead = AutoUncertaintyHead
    luh.__spec__ = SimpleNamespace(name="luh")
    monkeypatch.setitem(sys.modules, "luh", luh)
    config = {"model_type": "llama", "num_hidden_layers": LAYERS}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(str(config).replace("'", '"'))
    (tmp_path / "head").mkdir()
    written = "feature_extractor: [{name: luh.feature_extractors.token_probabilities}]"
    (tmp_path / "head" / "config.yaml").write_text(written)

    def load(*head):
        if head:
            heads[str(tmp_path / "head")] = Linear(*head)
        return LuhHead.from_pretrained(str(tmp_path / "head"), str(tmp_path / "model"))

    return load


@pytest.fixture(scope="module")
def seen() -> Activations:
    rng = np.random.default_rng(1)
    hidden = {layer: rng.normal(size=(LENGTH, WIDTH)).astype(np.float32) for layer in (1, 3)}
    maps = rng.random((LAYERS, HEADS, LENGTH, LENGTH)).astype(np.float32)
    return Activations(np.zeros(LENGTH - 1, np.float32), hidden, attention_maps=maps)


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    top = np.log(np.random.default_rng(2).dirichlet(np.ones(9), len(ANSWER)))
    trace = TokenTrace(9, top[:, 0], top_ids=np.tile(np.arange(9), (4, 1)), top_logprobs=top)
    return Candidate(PROMPT, ANSWER, "?", trace)


def sums(candidate: Candidate, seen: Activations) -> np.ndarray:
    """The stand-in's logit at the index before each token of the answer."""
    highest = np.sort(np.exp(candidate.trace.top_logprobs), 1)[:, -TOP:].sum(1)
    hidden = sum(states.sum(1) for states in seen.hidden.values())[len(PROMPT) - 1 : -1]
    own = seen.attention_maps.diagonal(axis1=2, axis2=3).sum((0, 1))[len(PROMPT) - 1 : -1]
    return 0.5 * (highest + hidden + own)


def probability(logit):
    return 1 / (1 + np.exp(-logit))


def test_a_head_for_claims_reads_the_indices_before_each_claims_tokens(load, candidate, seen):
    head, logits = load("claim", *EVERY), sums(candidate, seen)
    expected = probability(np.array([logits[:2].mean(), logits[3]]))
    np.testing.assert_allclose(head.doubts(candidate, seen, [(0, 1), (3,)]), expected, rtol=1e-5)
    assert head.doubt(candidate, seen) == pytest.approx(probability(logits.mean()), rel=1e-5)


def test_a_head_for_tokens_counts_the_mean_over_them(load, candidate, seen):
    head, each = load("token", *EVERY), probability(sums(candidate, seen))
    expected = [each[:2].mean(), each[3]]
    np.testing.assert_allclose(head.doubts(candidate, seen, [(0, 1), (3,)]), expected, rtol=1e-5)
    assert head.doubt(candidate, seen) == pytest.approx(each.mean(), rel=1e-5)


def test_it_requests_what_its_readers_need(load):
    head = load("claim", *EVERY)
    assert head.inspection == Inspection((1, 3), "maps")
    assert head.top_logprobs == TOP
    assert load("claim", HIDDEN).inspection == Inspection((1, 3))


@pytest.mark.parametrize(
    ("extractor", "why"),
    [
        (FeatureExtractorOfAnotherKind(), "FeatureExtractorOfAnotherKind"),
        (FeatureExtractorTokenProbabilities(TOP, temperature=0.5), "another temperature"),
    ],
)
def test_a_head_that_reads_anything_else_is_refused(load, extractor, why):
    with pytest.raises(MethodUnavailableError, match=why):
        load("claim", extractor)


def test_a_head_that_cannot_be_loaded_is_refused(load):
    with pytest.raises(ModelNotFoundError, match="cannot load the luh head"):
        load()


@pytest.mark.parametrize(
    ("written", "error", "why"),
    [
        ("feature_extractor: [{name: os.path}]", ConfigurationError, "names the module 'os.path'"),
        ("feature_extractor: [{name: luhh}]", ConfigurationError, "names the module"),
        ("feature_extractor: !!python/name:os.system", ModelNotFoundError, "cannot|can be read"),
        ("{}", ModelNotFoundError, "can be read"),
    ],
)
def test_a_head_that_names_modules_of_others_is_refused(load, tmp_path, written, error, why):
    load("claim", HIDDEN)
    (tmp_path / "head" / "config.yaml").write_text(written)
    with pytest.raises(error, match=why):
        load("claim", HIDDEN)


def test_a_head_that_fails_says_so(load, candidate, seen):
    head = load("claim", FeatureExtractorBasicHiddenStates([2]))
    with pytest.raises(ConfigurationError, match="fails"):
        head.doubt(candidate, seen)


def test_without_the_package_the_error_says_how_to_install_it():
    with pytest.raises(MissingDependencyError, match="pip install git"):
        LuhHead.from_pretrained("some/head", "some/model")


async def test_the_answer_and_each_sentence_are_scored_from_one_forward_pass(load):
    head = load("claim", FeatureExtractorBasicHiddenStates([2]))
    backend, request = MeteredBackend(ScriptedBackend(["Yes. No"])), Request((63,))
    result = Result(tuple(await backend.generate(request)), ({},), backend.usage)
    options = MethodOptions(head=head)
    names = ["uhead", "claim_uhead"]
    result = await add_evidence_scores(result, backend, request, names, options)
    bits = np.array([bin(byte).count("1") for byte in b"?Yes. N"]) * 3 * 0.5
    found = result.scores[0]
    assert found["uhead"].value == pytest.approx(probability(bits.mean()))
    values = [claim.value for claim in found["claim_uhead"].claims]
    assert values == pytest.approx([probability(bits[:4].mean()), probability(bits[5:].mean())])
    assert result.usage.forward_passes == len("Yes. No") + 1


def test_claims_need_such_a_head(load):
    own = UncertaintyHead("scripted", 1, np.zeros(8), 0.0)
    capabilities = ScriptedBackend([]).capabilities
    lacks = METHODS["UHeadClaim"].missing(capabilities, MethodOptions(head=own))
    assert "LuhHead.from_pretrained" in lacks
    head = load("claim", HIDDEN)
    assert METHODS["UHeadClaim"].missing(capabilities, MethodOptions(head=head)) is None


def test_a_trace_without_top_log_probabilities_is_refused(load, candidate, seen):
    bare = replace(candidate, trace=TokenTrace(9, candidate.trace.logprob))
    with pytest.raises(ConfigurationError, match="top log-probabilities, which the trace has not"):
        load("claim", *EVERY).doubt(bare, seen)
