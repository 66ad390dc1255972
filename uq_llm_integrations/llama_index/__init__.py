"""LlamaIndex classes: translation only."""

from uq_llm_integrations.errors import MissingDependencyError

try:
    import llama_index.core  # noqa: F401  # only to say which extra is missing
except ImportError as error:
    raise MissingDependencyError("llama-index-core", "llama-index") from error

from uq_llm_integrations.llama_index.evaluation import UncertaintyEvaluator
from uq_llm_integrations.llama_index.events import UncertaintyEventHandler
from uq_llm_integrations.llama_index.llm import (
    HuggingFaceUncertaintyLLM,
    HybridUncertaintyLLM,
    UncertaintyLLM,
    VLLMUncertaintyLLM,
)
from uq_llm_integrations.llama_index.query_engine import UncertaintyQueryEngine

__all__ = [
    "HuggingFaceUncertaintyLLM",
    "HybridUncertaintyLLM",
    "UncertaintyEvaluator",
    "UncertaintyEventHandler",
    "UncertaintyLLM",
    "UncertaintyQueryEngine",
    "VLLMUncertaintyLLM",
]
