"""What several tests of the Hugging Face backend look at."""

import importlib
import weakref

import pytest
import transformers


@pytest.fixture
def loaded(monkeypatch) -> list[weakref.ref[transformers.PreTrainedModel]]:
    """References to the models that are loaded during the test; those of dropped ones are empty."""
    importlib.import_module("bitsandbytes")  # it may log an exception, with the frames that load
    references: list[weakref.ref[transformers.PreTrainedModel]] = []
    from_pretrained = transformers.AutoModelForCausalLM.from_pretrained

    def load(*arguments, **options) -> transformers.PreTrainedModel:
        model = from_pretrained(*arguments, **options)
        references.append(weakref.ref(model))
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    return references
