"""LangChain classes: translation only."""

from typing import TYPE_CHECKING, Any

from uq_llm_integrations.errors import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # only to say which extra is missing
except ImportError as error:
    raise MissingDependencyError("langchain-core", "langchain") from error

from uq_llm_integrations.langchain.callbacks import (
    LangSmithFeedbackHandler,
    OpenTelemetryHandler,
    UncertaintyCallbackHandler,
)
from uq_llm_integrations.langchain.chat import (
    ChatHuggingFaceUncertainty,
    ChatHybridUncertainty,
    ChatVLLMUncertainty,
)
from uq_llm_integrations.langchain.closed_streams import CollectedCall, ScoredStreamHandler
from uq_llm_integrations.langchain.gate import UncertaintyGate
from uq_llm_integrations.langchain.grounding import GroundingRunnable
from uq_llm_integrations.langchain.llm import (
    HuggingFaceUncertaintyLLM,
    HybridUncertaintyLLM,
    ScoredText,
    VLLMUncertaintyLLM,
)

if TYPE_CHECKING:
    from uq_llm_integrations.langchain.middleware import UncertaintyGateMiddleware

__all__ = [
    "ChatHuggingFaceUncertainty",
    "ChatHybridUncertainty",
    "ChatVLLMUncertainty",
    "CollectedCall",
    "GroundingRunnable",
    "HuggingFaceUncertaintyLLM",
    "HybridUncertaintyLLM",
    "LangSmithFeedbackHandler",
    "OpenTelemetryHandler",
    "ScoredStreamHandler",
    "ScoredText",
    "UncertaintyCallbackHandler",
    "UncertaintyGate",
    "UncertaintyGateMiddleware",
    "VLLMUncertaintyLLM",
]


def __getattr__(name: str) -> Any:
    # Agents are in the package `langchain`, which chains do without.
    if name == "UncertaintyGateMiddleware":
        from uq_llm_integrations.langchain.middleware import UncertaintyGateMiddleware

        return UncertaintyGateMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
