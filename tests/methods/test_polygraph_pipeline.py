"""Scores on the engine against lm-polygraph's own pipeline, from model to estimator.

lm-polygraph generates on Hugging Face with the same weights; its token ids are scored here on
vLLM, hidden states and attention included. Entailment is judged by the same small classifier.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.methods.helpers import add_scores
from uq_llm_integrations import Classifier, DensityFit, MethodOptions, Request
from uq_llm_integrations.checkpoints import resolve_model

pytestmark = pytest.mark.engine

PROMPT = "Question: What is the capital of France?\nAnswer: The capital of"
SAMPLES = 4


@pytest.fixture(scope="module")
def folder() -> str:
    """The demo model's folder."""
    source = resolve_model("smollm2")
    source.prepare()
    return source.path


@pytest.fixture(scope="module")
def classifier(folder, tmp_path_factory) -> str:
    """A folder with a tiny random classifier of entailment, and the demo model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    target = str(tmp_path_factory.mktemp("classifier"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.8, pad_token_id=tokenizer.pad_token_id,
        id2label={0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
        label2id={"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2},
    )  # fmt: skip  # a table of numbers
    BertForSequenceClassification(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def theirs(folder, classifier) -> dict:
    """All statistics of lm-polygraph's own calculators, for one prompt."""
    import torch
    from lm_polygraph import WhiteboxModel
    from lm_polygraph import stat_calculators as calculate
    from lm_polygraph.stat_calculators.attention_eliciting_prompt import (
        AttentionElicitingPromptCalculator,
    )
    from lm_polygraph.stat_calculators.semantic_classes_claim_to_samples import (
        SemanticClassesClaimToSamplesCalculator,
    )
    from lm_polygraph.utils.generation_parameters import GenerationParameters
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    class Unconstrained(WhiteboxModel):
        """Lets the end of text come when it comes, so that both see the model's own numbers."""

        def generate(self, **arguments):
            return super().generate(**{**arguments, "min_new_tokens": None})

    whitebox = Unconstrained(
        model, tokenizer, folder, generation_parameters=GenerationParameters(top_k=0)
    )
    torch.manual_seed(7)
    nli = SimpleNamespace(
        batch_size=16,
        device="cpu",
        deberta=AutoModelForSequenceClassification.from_pretrained(classifier).eval(),
        deberta_tokenizer=AutoTokenizer.from_pretrained(classifier),
        setup=lambda: None,
    )
    stats = {"input_texts": [PROMPT], "no_fewshot_input_texts": [PROMPT], "model": whitebox}
    for calculator in (
        calculate.GreedyProbsCalculator(output_attentions=True, output_hidden_states=True),
        calculate.EntropyCalculator(),
        calculate.SamplingGenerationCalculator(samples_n=SAMPLES),
        calculate.SemanticMatrixCalculator(nli),
        calculate.SemanticClassesCalculator(),
        calculate.ConcatGreedySemanticMatrixCalculator(nli),
        calculate.AttentionForwardPassCalculator(),
        AttentionElicitingPromptCalculator(),
        calculate.PromptCalculator(),
        calculate.SamplingPromptCalculator(),
        calculate.GreedyAlternativesNLICalculator(nli),
        _claim_all,
        SemanticClassesClaimToSamplesCalculator(nli),
    ):
        stats |= calculator(stats, [PROMPT], whitebox, 12)
    stats["train_embeddings_decoder"] = _embeddings_of_noise(model)
    return stats


def _claim_all(stats, texts, whitebox, tokens) -> dict:
    """The whole answer as one claim, in lm-polygraph's own shape."""
    from lm_polygraph.stat_calculators.extract_claims import Claim

    (text,), (ids,) = stats["greedy_texts"], stats["greedy_tokens"]
    ended = ids[-1] == whitebox.tokenizer.eos_token_id
    return {"claims": [[Claim(text, text, list(range(len(ids) - ended)))]]}


def _embeddings_of_noise(model):
    """Mean hidden states of more texts than they have numbers, for a covariance of full rank."""
    import torch

    texts = torch.randint(1000, 40000, (640, 4))
    with torch.inference_mode():
        states = [model.model(part).last_hidden_state.mean(1) for part in texts.split(80)]
    return torch.cat(states).numpy()


METHODS = {
    "Perplexity": {},
    "MeanTokenEntropy": {},
    "SelfCertainty": {},
    "LexicalSimilarity": {},
    "SemanticEntropy": {},
    "SemanticEntropyPolygraph": {"class": "SemanticEntropy"},
    "NumSemSets": {},
    "DegMat": {},
    "Eccentricity": {},
    "EigValLaplacian": {},
    "KernelLanguageEntropy": {},
    "LUQ": {},
    "SemanticDensity": {},
    "MonteCarloNormalizedSequenceEntropy": {},
    "EigenScore": {},
    "MahalanobisDistance": {"class": "MahalanobisDistanceSeq"},
    "AttentionScore": {},
    "RAUQ": {},
    "CSL": {},
    "PTrue": {},
    "PTrueSampling": {},
    "BoostedProbSequence": {},
    "ClaimConditionedProbability": {},
    "MaximumClaimProbability": {},
    "PerplexityClaim": {},
    "MaxTokenEntropyClaim": {},
    "SelfCertaintyClaim": {},
    "FrequencyScoringClaim": {},
    "ClaimConditionedProbabilityClaim": {"is_stopword": lambda word: False},
}


@pytest.fixture(scope="module")
def ours(backend, theirs, classifier):
    """Our scores of lm-polygraph's greedy answer, beside its samples."""
    prompt_ids = tuple(theirs["input_tokens"][0])
    assert prompt_ids == backend.run(backend.encode(PROMPT))
    end = theirs["model"].tokenizer.eos_token_id
    greedy = tuple(theirs["greedy_tokens"][0])
    sampled = [tuple(ids) for ids in theirs["sample_tokens"][0]]
    sampled = [ids + (end,) * (len(ids) < 12) for ids in sampled]
    scored = backend.run(backend.score_all(prompt_ids, [greedy, *sampled]))
    scored = [
        replace(
            one,
            text=backend.run(backend.decode(one.token_ids)),
            finish_reason="stop" if one.token_ids[-1] == end else "length",
        )
        for one in scored
    ]
    greedy, *samples = scored
    density = DensityFit.fit(
        theirs["train_embeddings_decoder"],
        model=backend.capabilities.model,
        layer=-1,
        robust=False,
    )
    method_options = MethodOptions(
        samples=SAMPLES,
        entailment=Classifier(classifier),
        density=density,
        claims=lambda text: [(0, len(text))],
    )
    request = Request(prompt_ids, text=PROMPT)
    replay = Replay(backend, samples)
    return backend.run(add_scores([greedy], list(METHODS), replay, request, method_options))


class Replay:
    """A backend that has its samples already."""

    def __init__(self, backend, samples):
        self.backend, self.samples = backend, samples

    def __getattr__(self, name):
        return getattr(self.backend, name)

    async def generate(self, request, monitor=None):
        return self.samples


@pytest.mark.parametrize("name", METHODS)
def test_scores_equal_lm_polygraphs(name, theirs, ours):
    import lm_polygraph.estimators as estimators

    arguments = dict(METHODS[name])
    estimator = getattr(estimators, arguments.pop("class", name))(**arguments)
    (expected,) = estimator(theirs)
    if name == "SemanticEntropy":  # ours makes the samples' probabilities sum to 1
        expected += np.logaddexp.reduce(theirs["sample_log_probs"][0])
    score = ours.scores[0][name]
    found = [claim.value for claim in score.claims] if estimator.level == "claim" else score.value
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-3)
