"""What was fitted on embeddings of one layer of one model: checked, kept as files and read back.

A fit is two files in a folder, arrays as safetensors and a description as JSON. Neither can run
code when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uq_llm_integrations.errors import ConfigurationError, MissingDependencyError
from uq_llm_integrations.records import Layer, Singles

FORMAT = 1
"""Version of the files; another one is refused."""

MINIMUM_TEXTS = 20
"""Fewer texts than this make no fit."""

Arrays = Mapping[str, NDArray[Any]]


def check_training(embeddings: ArrayLike) -> Singles:
    """Return embeddings [N, D] in single precision; refuse what no fit can rest on."""
    checked = np.asarray(embeddings, np.float32)
    if checked.ndim != 2 or len(checked) < MINIMUM_TEXTS:
        raise ConfigurationError(
            f"a fit needs embeddings [N, D] of {MINIMUM_TEXTS} texts or more, not {checked.shape}"
        )
    _check_finite(checked)
    if not np.ptp(checked, 0).any():
        raise ConfigurationError("a fit needs embeddings that differ; these are all the same")
    return checked


def check_embedding(embedding: ArrayLike, width: int) -> Singles:
    """Return one embedding [D] in single precision; refuse another width than the fit's."""
    checked = np.asarray(embedding, np.float32)
    if checked.shape != (width,):
        raise ConfigurationError(
            f"this fit is of embeddings of {width} numbers; it cannot score one of {checked.shape}"
        )
    _check_finite(checked)
    return checked


def save_fit(folder: Path | str, kind: str, arrays: Arrays, *, model: str, layer: Layer) -> None:
    """Write `kind`.safetensors and `kind`.json into the folder, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors writes the memory of an array as it lies there.
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = optional_module("safetensors.numpy").save(packed)
    (folder / f"{kind}.safetensors").write_bytes(content)
    description = {
        "format": FORMAT,
        "kind": kind,
        "model": model,
        "layer": layer,
        "sha256": sha256(content).hexdigest(),
    }
    (folder / f"{kind}.json").write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def load_fit(folder: Path | str, kind: str, *, model: str, layer: Layer) -> dict[str, NDArray[Any]]:
    """Return the arrays that `save_fit` wrote; refuse those of another model, layer or format."""
    folder = Path(folder)
    try:
        description = json.loads((folder / f"{kind}.json").read_text("utf-8"))
        content = (folder / f"{kind}.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"there is no {kind} fit in {folder}: {error}") from error
    _check_description(description, kind, model, layer)
    if description.get("sha256") != sha256(content).hexdigest():
        raise ConfigurationError(f"the {kind} fit in {folder} is damaged: its files do not match")
    arrays: dict[str, NDArray[Any]] = optional_module("safetensors.numpy").load(content)
    return arrays


def optional_module(name: str) -> Any:
    """Import a module that comes with lm-polygraph; say how to install it where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(name.partition(".")[0], "polygraph") from error


def _check_description(description: Any, kind: str, model: str, layer: Layer) -> None:
    description = description if isinstance(description, dict) else {}
    if description.get("format") != FORMAT or description.get("kind") != kind:
        raise ConfigurationError(
            f"this is a {description.get('kind')} fit of format {description.get('format')}; "
            f"wanted is a {kind} fit of format {FORMAT}"
        )
    fitted = description.get("model"), description.get("layer")
    if fitted != (model, layer):
        raise ConfigurationError(
            f"this {kind} fit is of model {fitted[0]!r}, layer {fitted[1]}; "
            f"it cannot score model {model!r}, layer {layer}"
        )


def _check_finite(embeddings: Singles) -> None:
    if not np.isfinite(embeddings).all():
        raise ConfigurationError("embeddings must be finite; there are NaN or infinite numbers")
