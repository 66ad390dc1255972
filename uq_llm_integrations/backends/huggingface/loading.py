"""Loading a model with transformers, and what its memory may be held to."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.token_texts import text_decoder
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.checkpoints import resolve_model
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineStartError,
    MissingDependencyError,
    ModelNotFoundError,
    described,
    reason,
)
from uq_llm_integrations.identity import NO_PART
from uq_llm_integrations.secret_values import concealing, opened

if TYPE_CHECKING:
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

QUANTIZATIONS = ("int8", "int4")

# What else of the arguments to `from_pretrained` the tokenizer and the configuration are read by.
_SHARED = frozenset({"revision", "trust_remote_code", "token", "cache_dir", "local_files_only"})

_ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded; wrong values are refused at once, before anything is loaded."""

    name: str
    """What the model is called: a bundled one is made ready under this name."""
    path: str
    dtype: str = "auto"
    device: str | None = None
    quantization: str | None = None
    attn_implementation: str | None = None
    gpu_memory_utilization: float | None = field(default=None, metadata=NO_PART)
    expandable_segments: bool = field(default=False, metadata=NO_PART)
    tokenizer: PreTrainedTokenizerBase | str | None = None
    others: Mapping[str, object] = field(default_factory=dict)
    """Further arguments to `from_pretrained`."""

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise ConfigurationError(
                f"quantization is {described(self.quantization)}; allowed are None, 'int8' and "
                "'int4'"
            )
        if self.quantization and find_spec("bitsandbytes") is None:
            raise MissingDependencyError("bitsandbytes", "hf")
        share = self.gpu_memory_utilization
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise ConfigurationError(
                f"gpu_memory_utilization is {described(share)}; allowed are fractions above 0 and "
                "up to 1"
            )
        for own, foreign in (("quantization", "quantization_config"), ("device", "device_map")):
            if getattr(self, own) and foreign in self.others:
                raise ConfigurationError(f"give either {own} or {foreign}, not both")

    @property
    def shared(self) -> dict[str, object]:
        """The arguments that the configuration and the tokenizer are read with, too."""
        values: dict[str, object] = opened(self.others)
        return {name: value for name, value in values.items() if name in _SHARED}


@dataclass(frozen=True)
class EndTokens:
    """The token that ends a text, and others that do, which become the stop reason."""

    eos: int | None
    others: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        """All tokens that end a text."""
        return self.others if self.eos is None else self.others | {self.eos}


class Description:
    """What is known of a model without its weights: tokenizer and sizes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
        text = config.get_text_config()
        self.tokenizer = tokenizer
        self.layers = int(text.num_hidden_layers)
        self.vocabulary_size = int(text.vocab_size)
        self.context_length: int | None = getattr(text, "max_position_embeddings", None)

    @classmethod
    def read(cls, options: ModelOptions, ready: PreTrainedModel | None = None) -> Description:
        """Read tokenizer and configuration, the latter from a model that is loaded already."""
        if ready is None:
            resolve_model(options.name).prepare()
        return concealing(options.others, lambda: cls._read(options, ready))

    @classmethod
    def _read(cls, options: ModelOptions, ready: PreTrainedModel | None) -> Description:
        with _loading(options.path):
            from transformers import AutoConfig

            config = ready and ready.config
            config = config or AutoConfig.from_pretrained(options.path, **options.shared)
            return cls(_tokenizer(options), config)

    def text(self, token_ids: list[int]) -> str:
        """Return the text of tokens, without special ones."""
        return text_decoder(self.tokenizer)(token_ids)


def load_weights(options: ModelOptions) -> PreTrainedModel:
    """Return the model in evaluation mode, on its device."""
    if options.expandable_segments:
        _expand_segments()
    return concealing(options.others, lambda: _weights(options))


def _weights(options: ModelOptions) -> PreTrainedModel:
    with _loading(options.path):
        import torch
        from transformers import AutoModelForCausalLM

        _hold_memory(options.gpu_memory_utilization)
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        arguments = opened(options.others)
        if options.quantization:
            arguments["quantization_config"] = _quantization(options.quantization, device)
            arguments.setdefault("device_map", {"": device})
        if options.attn_implementation:
            arguments["attn_implementation"] = options.attn_implementation
        model = AutoModelForCausalLM.from_pretrained(options.path, dtype=options.dtype, **arguments)
        return (model if "device_map" in arguments else model.to(device)).eval()


def end_tokens(model: PreTrainedModel, description: Description) -> EndTokens:
    """Return what ends a text: the tokenizer's own token, and those of the generation settings."""
    eos = description.tokenizer.eos_token_id
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    tokens = set(named if isinstance(named, list | tuple) else [] if named is None else [named])
    return EndTokens(eos, frozenset(tokens - {eos}))


def free_memory() -> None:
    """Give back what nothing refers to any more, also to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    if options.tokenizer is not None and not isinstance(options.tokenizer, str):
        return options.tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(options.tokenizer or options.path, **options.shared)


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Turn what transformers raises while it loads into our errors."""
    hide_mismatched_builds()
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise MissingDependencyError("transformers with torch", "hf")
    try:
        yield
    except (ConfigurationError, EngineStartError):
        raise
    except OSError as error:
        raise ModelNotFoundError(
            f"the model {described(path)} cannot be loaded: {reason(error)}"
        ) from error
    except Exception as error:
        raise EngineStartError(
            f"the model {described(path)} did not load: {reason(error)}"
        ) from error


def _quantization(name: str, device: str) -> BitsAndBytesConfig:
    import bitsandbytes
    import torch
    from transformers import BitsAndBytesConfig

    kind = torch.device(device).type
    if kind not in getattr(bitsandbytes, "supported_torch_devices", {"cuda"}):
        raise ConfigurationError(
            f"this bitsandbytes cannot quantize on {kind}; a newer one may, or take another device"
        )
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_Once())
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


class _Once(logging.Filter):
    """Lets each message through once; bitsandbytes warns of a cast at every layer."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        is_new = record.getMessage() not in self._seen
        self._seen.add(record.getMessage())
        return is_new


def _hold_memory(share: float | None) -> None:
    import torch

    if share is None:
        return
    if not torch.cuda.is_available():
        logger.warning("gpu_memory_utilization does nothing: there is no CUDA device")
    for device in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(share, device)


def _expand_segments() -> None:
    """Let PyTorch's CUDA memory grow in segments; the variable is read when CUDA starts."""
    settings = os.environ.get(_ALLOCATOR, "")
    if "expandable_segments" not in settings:
        parts = [part for part in (settings, "expandable_segments:True") if part]
        os.environ[_ALLOCATOR] = ",".join(parts)
    import torch

    if torch.cuda.is_initialized():
        logger.warning("expandable_segments may do nothing: CUDA was already started")
