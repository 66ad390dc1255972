"""Drop-in LLM classes for vLLM that return, with every answer, how sure the model was.

Names are loaded when they are first used, so that importing the package loads neither torch, vllm,
lm-polygraph nor a framework. The table of them is `__init__.pyi`.
"""

import lazy_loader

from uq_llm_integrations.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
