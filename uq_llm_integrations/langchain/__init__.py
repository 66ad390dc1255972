"""LangChain classes: translation only."""

from uq_llm_integrations.errors import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # only to say which extra is missing
except ImportError as error:
    raise MissingDependencyError("langchain-core", "langchain") from error

from uq_llm_integrations.langchain.callbacks import UncertaintyCallbackHandler
from uq_llm_integrations.langchain.chat_models import (
    ChatHuggingFaceUncertainty,
    ChatHybridUncertainty,
    ChatVLLMUncertainty,
)
from uq_llm_integrations.langchain.completion import ScoredText
from uq_llm_integrations.langchain.llm import (
    HuggingFaceUncertaintyLLM,
    HybridUncertaintyLLM,
    VLLMUncertaintyLLM,
)

__all__ = [
    "ChatHuggingFaceUncertainty",
    "ChatHybridUncertainty",
    "ChatVLLMUncertainty",
    "HuggingFaceUncertaintyLLM",
    "HybridUncertaintyLLM",
    "ScoredText",
    "UncertaintyCallbackHandler",
    "VLLMUncertaintyLLM",
]
