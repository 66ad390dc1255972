"""What is said where LlamaIndex is not installed."""

import importlib
import sys

import pytest

from uq_llm_integrations import errors


def test_the_extra_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    monkeypatch.delitem(sys.modules, "uq_llm_integrations.llama_index", raising=False)
    with pytest.raises(errors.MissingDependencyError, match=r"\[llama-index\]"):
        importlib.import_module("uq_llm_integrations.llama_index")
