"""Drop-in LLM classes for vLLM that return, with every answer, how sure the model was.

Names are loaded when they are first used, so that importing the package loads neither torch, vllm,
lm-polygraph nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uq_llm_integrations.backends.base import Backend
    from uq_llm_integrations.backends.huggingface.backend import (
        HuggingFaceBackend,
    )
    from uq_llm_integrations.backends.hybrid import HybridBackend
    from uq_llm_integrations.backends.scripted import ScriptedBackend
    from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
    from uq_llm_integrations.config import Configuration
    from uq_llm_integrations.errors import (
        ConfigurationError, EmptyPromptError, EngineDeadError, EngineError, EngineStartError,
        EngineTimeoutError, EvidenceError, HighUncertaintyError, InvalidRequestError,
        MethodUnavailableError, MissingDependencyError, ModelNotFoundError, NotShareableError,
        PromptTooLongError, UncertaintyError, UnknownMethodError,
    )
    from uq_llm_integrations.generators import (
        HybridUncertaintyGenerator, VLLMStepGenerator,
    )
    from uq_llm_integrations.langchain import (
        ChatHuggingFaceUncertainty, ChatHybridUncertainty, ChatVLLMUncertainty,
        HuggingFaceUncertaintyLLM, HybridUncertaintyLLM, VLLMUncertaintyLLM,
    )
    from uq_llm_integrations.methods.base import (
        Method, evidence_method, trace_method,
    )
    from uq_llm_integrations.methods.context import Context
    from uq_llm_integrations.methods.contrib.luh import LuhHead
    from uq_llm_integrations.methods.entailment import (
        Classifier, EmbeddingSimilarity, ServedJudge,
    )
    from uq_llm_integrations.methods.fitted.density import DensityFit
    from uq_llm_integrations.methods.fitted.fitting import (
        afit_density, afit_head, fit_density, fit_head,
    )
    from uq_llm_integrations.methods.fitted.head import UncertaintyHead
    from uq_llm_integrations.methods.options import MethodOptions
    from uq_llm_integrations.methods.registry import (
        METHODS, missing_requirements, register_method,
    )
    from uq_llm_integrations.model import UncertaintyModel
    from uq_llm_integrations.records import (
        Activations, Candidate, Claim, Conversation, Decision, EarlyStop, Inspection, Request,
        Result, SampleMonitor, SamplingEnd, Score, TokenTrace, Usage,
    )
    from uq_llm_integrations.settings import Settings
    from uq_llm_integrations.strategies.abstain import Abstain, Policy
    from uq_llm_integrations.strategies.base import run_strategy
    from uq_llm_integrations.strategies.best_of_n import BestOfN, Single
    from uq_llm_integrations.strategies.boundaries import Boundary
    from uq_llm_integrations.strategies.quantities import (
        agreement, load_threshold, score, token_max, token_mean, worst_window,
    )
    from uq_llm_integrations.strategies.retry import Retry, RetryErrors
    from uq_llm_integrations.strategies.self_consistency import SelfConsistency
    from uq_llm_integrations.strategies.step_state import StepState
    from uq_llm_integrations.strategies.stepwise import Stepwise
    from uq_llm_integrations.truncation import score_truncated_sequence

__version__ = "0.2.0"

_MODULES = {
    "backends.base": "Backend",
    "backends.huggingface.backend": "HuggingFaceBackend",
    "backends.hybrid": "HybridBackend",
    "backends.scripted": "ScriptedBackend",
    "backends.vllm.backend": "VLLMEngineBackend",
    "config": "Configuration",
    "errors": (
        "ConfigurationError EmptyPromptError EngineDeadError EngineError EngineStartError "
        "EngineTimeoutError EvidenceError HighUncertaintyError InvalidRequestError "
        "MethodUnavailableError MissingDependencyError ModelNotFoundError NotShareableError "
        "PromptTooLongError UncertaintyError UnknownMethodError"
    ),
    "generators": "HybridUncertaintyGenerator VLLMStepGenerator",
    "langchain": (
        "ChatHuggingFaceUncertainty ChatHybridUncertainty ChatVLLMUncertainty "
        "HuggingFaceUncertaintyLLM HybridUncertaintyLLM VLLMUncertaintyLLM"
    ),
    "methods.base": "Method evidence_method trace_method",
    "methods.context": "Context",
    "methods.contrib.luh": "LuhHead",
    "methods.entailment": "Classifier EmbeddingSimilarity ServedJudge",
    "methods.fitted.density": "DensityFit",
    "methods.fitted.fitting": "afit_density afit_head fit_density fit_head",
    "methods.fitted.head": "UncertaintyHead",
    "methods.options": "MethodOptions",
    "methods.registry": "METHODS missing_requirements register_method",
    "model": "UncertaintyModel",
    "records": (
        "Activations Candidate Claim Conversation Decision EarlyStop Inspection Request "
        "Result SampleMonitor SamplingEnd Score TokenTrace Usage"
    ),
    "settings": "Settings",
    "strategies.abstain": "Abstain Policy",
    "strategies.base": "run_strategy",
    "strategies.best_of_n": "BestOfN Single",
    "strategies.boundaries": "Boundary",
    "strategies.quantities": "agreement load_threshold score token_max token_mean worst_window",
    "strategies.retry": "Retry RetryErrors",
    "strategies.self_consistency": "SelfConsistency",
    "strategies.step_state": "StepState",
    "strategies.stepwise": "Stepwise",
    "truncation": "score_truncated_sequence",
}
"""The public names of each module."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  # made of the one table above


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
