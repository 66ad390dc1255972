"""Drop-in LLM classes for vLLM that tell, for every answer, how sure the model was.

Names are loaded when they are first used, so that importing the package loads neither torch, vllm,
lm-polygraph nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uq_llm_integrations.backends.scripted import ScriptedBackend
    from uq_llm_integrations.backends.vllm_engine import VLLMEngineBackend
    from uq_llm_integrations.decoding.drive import drive
    from uq_llm_integrations.decoding.strategies import Single
    from uq_llm_integrations.langchain import VLLMUncertaintyLLM
    from uq_llm_integrations.records import (
        Candidate,
        Decision,
        Request,
        Result,
        Score,
        TokenTrace,
        Usage,
    )
    from uq_llm_integrations.scoring.methods import METHODS

__version__ = "0.1.0"

_HOMES = {
    "ScriptedBackend": "backends.scripted",
    "VLLMEngineBackend": "backends.vllm_engine",
    "drive": "decoding.drive",
    "Single": "decoding.strategies",
    "VLLMUncertaintyLLM": "langchain",
    "Candidate": "records",
    "Decision": "records",
    "Request": "records",
    "Result": "records",
    "Score": "records",
    "TokenTrace": "records",
    "Usage": "records",
    "METHODS": "scoring.methods",
}

__all__ = [
    "METHODS",
    "Candidate",
    "Decision",
    "Request",
    "Result",
    "Score",
    "ScriptedBackend",
    "Single",
    "TokenTrace",
    "Usage",
    "VLLMEngineBackend",
    "VLLMUncertaintyLLM",
    "__version__",
    "drive",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
