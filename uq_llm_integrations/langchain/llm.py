"""LangChain's completion classes, one for each kind of backend."""

from __future__ import annotations

from uq_llm_integrations.faces import OnBoth, OnHuggingFace, OnVLLM
from uq_llm_integrations.langchain.completion import UncertaintyLLM


class VLLMUncertaintyLLM(UncertaintyLLM, OnVLLM):
    """A completion model on vLLM.

    Arguments beside those of all completion models go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """


class HuggingFaceUncertaintyLLM(UncertaintyLLM, OnHuggingFace):
    """A completion model on Hugging Face transformers.

    Arguments beside those of all completion models go to `HuggingFaceBackend`, and from there to
    `from_pretrained`.
    """


class HybridUncertaintyLLM(UncertaintyLLM, OnBoth):
    """A completion model that generates on vLLM and looks inside the model to score.

    `mode` says where the inside is looked at: `shared`, on the engine's own weights; `resident`, in
    a second copy of the model; `sequential`, in a copy that is loaded while the engine sleeps.
    """
