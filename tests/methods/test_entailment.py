"""A classifier of text pairs that can never be loaded is refused when it is made."""

import pytest

from uq_llm_integrations import Classifier, MissingDependencyError, ModelNotFoundError
from uq_llm_integrations.methods import entailment as meaning


@pytest.mark.parametrize("path", ["/no/such/folder", "./neither", "~/nor/this"])
def test_a_folder_that_does_not_exist_is_refused(path):
    with pytest.raises(ModelNotFoundError, match="there is no classifier in the folder"):
        Classifier(path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"holds no config\.json"):
        Classifier(str(tmp_path))


def test_a_name_on_the_hub_is_looked_up_on_first_use_only():
    assert Classifier("microsoft/deberta-large-mnli").name == "microsoft/deberta-large-mnli"


def test_a_missing_package_is_refused(monkeypatch):
    monkeypatch.setattr(meaning, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="transformers is not installed"):
        Classifier("some/nli")
