"""Drop-in LLM classes for vLLM that tell, for every answer, how sure the model was.

Names are loaded when they are first used, so that importing the package loads neither torch, vllm,
lm-polygraph nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
    from uq_llm_integrations.backends.hybrid import HybridBackend
    from uq_llm_integrations.backends.scripted import ScriptedBackend
    from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
    from uq_llm_integrations.configuration import Configuration
    from uq_llm_integrations.generators import HybridUncertaintyGenerator
    from uq_llm_integrations.langchain import (
        ChatHuggingFaceUncertainty,
        ChatHybridUncertainty,
        ChatVLLMUncertainty,
        HuggingFaceUncertaintyLLM,
        HybridUncertaintyLLM,
        VLLMUncertaintyLLM,
    )
    from uq_llm_integrations.methods.availability import check
    from uq_llm_integrations.methods.contrib.luh import LuhHead
    from uq_llm_integrations.methods.entailment import Classifier, EmbeddingSimilarity, ServedJudge
    from uq_llm_integrations.methods.fitted.density import DensityFit
    from uq_llm_integrations.methods.fitted.fitting import (
        afit_density,
        afit_head,
        fit_density,
        fit_head,
    )
    from uq_llm_integrations.methods.fitted.head import UncertaintyHead
    from uq_llm_integrations.methods.options import MethodOptions
    from uq_llm_integrations.methods.registry import METHODS
    from uq_llm_integrations.records import (
        Activations,
        Candidate,
        Claim,
        Conversation,
        Decision,
        EarlyStop,
        Inspection,
        Request,
        Result,
        Score,
        TokenTrace,
        Usage,
    )
    from uq_llm_integrations.strategies.abstain import Abstain
    from uq_llm_integrations.strategies.best_of_n import BestOfN, SelfConsistency, Single
    from uq_llm_integrations.strategies.boundaries import Boundary
    from uq_llm_integrations.strategies.drive import drive
    from uq_llm_integrations.strategies.quantities import (
        agreement,
        load_threshold,
        score,
        token_max,
        token_mean,
        worst_window,
    )
    from uq_llm_integrations.strategies.retry import Retry, RetryErrors
    from uq_llm_integrations.strategies.step_state import StepState
    from uq_llm_integrations.strategies.stepwise import Stepwise, VLLMStepGenerator
    from uq_llm_integrations.truncation import score_truncated_sequence

__version__ = "0.1.0"

_HOMES = {
    "HuggingFaceBackend": "backends.huggingface.backend",
    "HybridBackend": "backends.hybrid",
    "ScriptedBackend": "backends.scripted",
    "VLLMEngineBackend": "backends.vllm.backend",
    "Configuration": "configuration",
    "Abstain": "strategies.abstain",
    "Boundary": "strategies.boundaries",
    "drive": "strategies.drive",
    "agreement": "strategies.quantities",
    "load_threshold": "strategies.quantities",
    "score": "strategies.quantities",
    "token_max": "strategies.quantities",
    "token_mean": "strategies.quantities",
    "worst_window": "strategies.quantities",
    "score_truncated_sequence": "truncation",
    "Retry": "strategies.retry",
    "RetryErrors": "strategies.retry",
    "StepState": "strategies.step_state",
    "Stepwise": "strategies.stepwise",
    "VLLMStepGenerator": "strategies.stepwise",
    "BestOfN": "strategies.best_of_n",
    "SelfConsistency": "strategies.best_of_n",
    "Single": "strategies.best_of_n",
    "MethodOptions": "methods.options",
    "check": "methods.availability",
    "afit_density": "methods.fitted.fitting",
    "afit_head": "methods.fitted.fitting",
    "fit_density": "methods.fitted.fitting",
    "fit_head": "methods.fitted.fitting",
    "Classifier": "methods.entailment",
    "EmbeddingSimilarity": "methods.entailment",
    "ServedJudge": "methods.entailment",
    "HybridUncertaintyGenerator": "generators",
    "ChatHuggingFaceUncertainty": "langchain",
    "ChatHybridUncertainty": "langchain",
    "ChatVLLMUncertainty": "langchain",
    "HuggingFaceUncertaintyLLM": "langchain",
    "HybridUncertaintyLLM": "langchain",
    "VLLMUncertaintyLLM": "langchain",
    "Candidate": "records",
    "Claim": "records",
    "Conversation": "records",
    "Decision": "records",
    "EarlyStop": "records",
    "Inspection": "records",
    "Activations": "records",
    "Request": "records",
    "Result": "records",
    "Score": "records",
    "TokenTrace": "records",
    "Usage": "records",
    "DensityFit": "methods.fitted.density",
    "UncertaintyHead": "methods.fitted.head",
    "LuhHead": "methods.contrib.luh",
    "METHODS": "methods.registry",
}

__all__ = [
    "METHODS",
    "Abstain",
    "Activations",
    "BestOfN",
    "Boundary",
    "Candidate",
    "ChatHuggingFaceUncertainty",
    "ChatHybridUncertainty",
    "ChatVLLMUncertainty",
    "Claim",
    "Classifier",
    "Configuration",
    "Conversation",
    "Decision",
    "DensityFit",
    "EarlyStop",
    "EmbeddingSimilarity",
    "HuggingFaceBackend",
    "HuggingFaceUncertaintyLLM",
    "HybridBackend",
    "HybridUncertaintyGenerator",
    "HybridUncertaintyLLM",
    "Inspection",
    "LuhHead",
    "MethodOptions",
    "Request",
    "Result",
    "Retry",
    "RetryErrors",
    "Score",
    "ScriptedBackend",
    "SelfConsistency",
    "ServedJudge",
    "Single",
    "StepState",
    "Stepwise",
    "TokenTrace",
    "UncertaintyHead",
    "Usage",
    "VLLMEngineBackend",
    "VLLMStepGenerator",
    "VLLMUncertaintyLLM",
    "__version__",
    "afit_density",
    "afit_head",
    "agreement",
    "check",
    "drive",
    "fit_density",
    "fit_head",
    "load_threshold",
    "score",
    "score_truncated_sequence",
    "token_max",
    "token_mean",
    "worst_window",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
