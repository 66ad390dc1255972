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
    from uq_llm_integrations.backends.vllm.engine import VLLMEngineBackend
    from uq_llm_integrations.configuration import Configuration
    from uq_llm_integrations.decoding.abstain import Abstain
    from uq_llm_integrations.decoding.boundaries import Boundary
    from uq_llm_integrations.decoding.drive import drive
    from uq_llm_integrations.decoding.quantities import (
        agreement,
        load_threshold,
        score,
        token_max,
        token_mean,
        worst_window,
    )
    from uq_llm_integrations.decoding.rescoring import score_truncated_sequence
    from uq_llm_integrations.decoding.retry import Retry, RetryErrors
    from uq_llm_integrations.decoding.step_state import StepState
    from uq_llm_integrations.decoding.steps import Stepwise, VLLMStepGenerator
    from uq_llm_integrations.decoding.strategies import BestOfN, SelfConsistency, Single
    from uq_llm_integrations.evidence.assessment import Assessment
    from uq_llm_integrations.evidence.availability import check
    from uq_llm_integrations.evidence.fitting import (
        afit_density,
        afit_head,
        fit_density,
        fit_head,
    )
    from uq_llm_integrations.evidence.meaning import Classifier, EmbeddingSimilarity, ServedJudge
    from uq_llm_integrations.generator import HybridUncertaintyGenerator
    from uq_llm_integrations.langchain import (
        ChatHuggingFaceUncertainty,
        ChatHybridUncertainty,
        ChatVLLMUncertainty,
        HuggingFaceUncertaintyLLM,
        HybridUncertaintyLLM,
        VLLMUncertaintyLLM,
    )
    from uq_llm_integrations.records import (
        Candidate,
        Claim,
        Conversation,
        Decision,
        EarlyStop,
        Inspection,
        Internals,
        Request,
        Result,
        Score,
        TokenTrace,
        Usage,
    )
    from uq_llm_integrations.scoring.density import DensityFit
    from uq_llm_integrations.scoring.head import UncertaintyHead
    from uq_llm_integrations.scoring.luh import LuhHead
    from uq_llm_integrations.scoring.methods import METHODS

__version__ = "0.1.0"

_HOMES = {
    "HuggingFaceBackend": "backends.huggingface.backend",
    "HybridBackend": "backends.hybrid",
    "ScriptedBackend": "backends.scripted",
    "VLLMEngineBackend": "backends.vllm.engine",
    "Configuration": "configuration",
    "Abstain": "decoding.abstain",
    "Boundary": "decoding.boundaries",
    "drive": "decoding.drive",
    "agreement": "decoding.quantities",
    "load_threshold": "decoding.quantities",
    "score": "decoding.quantities",
    "token_max": "decoding.quantities",
    "token_mean": "decoding.quantities",
    "worst_window": "decoding.quantities",
    "score_truncated_sequence": "decoding.rescoring",
    "Retry": "decoding.retry",
    "RetryErrors": "decoding.retry",
    "StepState": "decoding.step_state",
    "Stepwise": "decoding.steps",
    "VLLMStepGenerator": "decoding.steps",
    "BestOfN": "decoding.strategies",
    "SelfConsistency": "decoding.strategies",
    "Single": "decoding.strategies",
    "Assessment": "evidence.assessment",
    "check": "evidence.availability",
    "afit_density": "evidence.fitting",
    "afit_head": "evidence.fitting",
    "fit_density": "evidence.fitting",
    "fit_head": "evidence.fitting",
    "Classifier": "evidence.meaning",
    "EmbeddingSimilarity": "evidence.meaning",
    "ServedJudge": "evidence.meaning",
    "HybridUncertaintyGenerator": "generator",
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
    "Internals": "records",
    "Request": "records",
    "Result": "records",
    "Score": "records",
    "TokenTrace": "records",
    "Usage": "records",
    "DensityFit": "scoring.density",
    "UncertaintyHead": "scoring.head",
    "LuhHead": "scoring.luh",
    "METHODS": "scoring.methods",
}

__all__ = [
    "METHODS",
    "Abstain",
    "Assessment",
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
    "Internals",
    "LuhHead",
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
