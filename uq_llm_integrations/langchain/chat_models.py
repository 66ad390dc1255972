"""LangChain's chat classes, one for each kind of backend."""

from __future__ import annotations

from uq_llm_integrations.faces import OnBoth, OnHuggingFace, OnVLLM
from uq_llm_integrations.langchain.chat import UncertaintyChat


class ChatVLLMUncertainty(UncertaintyChat, OnVLLM):
    """A chat model on vLLM.

    Arguments beside those of all chat models go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """


class ChatHuggingFaceUncertainty(UncertaintyChat, OnHuggingFace):
    """A chat model on Hugging Face transformers.

    Arguments beside those of all chat models go to `HuggingFaceBackend`, and from there to
    `from_pretrained`. Answers cannot be held to a schema, nor tool calls be forced.
    """


class ChatHybridUncertainty(UncertaintyChat, OnBoth):
    """A chat model that generates on vLLM and looks inside the model to score.

    `mode` says where the inside is looked at: `shared`, on the engine's own weights; `resident`, in
    a second copy of the model; `sequential`, in a copy that is loaded while the engine sleeps.
    """
