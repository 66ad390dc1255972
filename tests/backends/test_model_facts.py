"""Models are known again by hashes of their weights and tokenizers."""

from pathlib import Path

import numpy as np
import pytest

from uq_llm_integrations import ScriptedBackend
from uq_llm_integrations.backends.model_facts import ModelFacts, model_facts, weights_digest


def written(folder: Path, seed: int, name: str = "model.safetensors") -> str | None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(np.random.default_rng(seed).bytes(10_000_000))
    return weights_digest(folder)


def test_the_same_weights_elsewhere_are_the_same(tmp_path):
    assert written(tmp_path / "one", 1) == written(tmp_path / "other", 1)


def test_other_weights_and_further_files_differ(tmp_path):
    found = [
        written(tmp_path / "a", 1),
        written(tmp_path / "b", 2),
        written(tmp_path / "a", 3, "b.bin"),
    ]
    assert len({*found}) == 3


def test_a_folder_without_weights_has_no_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert model_facts("a model", tmp_path, None) == ModelFacts("a model")


async def test_a_backend_without_tokenizer_and_weights_has_its_name_alone():
    assert await ScriptedBackend(["Paris"]).facts() == ModelFacts("scripted")


@pytest.mark.engine
def test_a_real_engine_knows_all_of_its_model(backend):
    facts = backend.run(backend.facts())
    assert facts.model == "smollm2"
    assert all((facts.weights, facts.tokenizer, facts.chat_template))
