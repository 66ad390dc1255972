"""What was fitted on embeddings of one layer of one model, kept as files and read back.

A fit is two files in a folder, arrays as safetensors and a description as JSON. Neither can run
code when it is read.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uq_llm_integrations import optional_packages
from uq_llm_integrations.errors import ConfigurationError, described, reason
from uq_llm_integrations.plain_data import read_text, replace_files
from uq_llm_integrations.records import Layer

FORMAT = 1
"""Version of the files; another one is refused."""

EXTRA = "fitted"
"""The extra of this package that brings what a fit is made and kept with."""

Arrays = Mapping[str, NDArray[Any]]
"""Name -> array, of single or double precision as the fit has it."""


def save_fit(folder: Path | str, kind: str, arrays: Arrays, *, model: str, layer: Layer) -> None:
    """Write `kind`.safetensors and `kind`.json into the folder, which is made if need be.

    Raises ConfigurationError where they cannot be written; what was there before stays.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error}") from error
    # safetensors writes the memory of an array as it lies there.
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = optional_module("safetensors.numpy").save(packed)
    description = {
        "format": FORMAT,
        "kind": kind,
        "model": model,
        "layer": layer,
        "sha256": sha256(content).hexdigest(),
    }
    text = json.dumps(description, indent=2) + "\n"
    files = {folder / f"{kind}.safetensors": content, folder / f"{kind}.json": text.encode()}
    replace_files(files)


def load_fit(folder: Path | str, kind: str, *, model: str, layer: Layer) -> Arrays:
    """Return the arrays that `save_fit` wrote; refuse those of another model, layer or format."""
    folder = Path(folder)
    try:
        description = json.loads(read_text(folder / f"{kind}.json"))
        content = (folder / f"{kind}.safetensors").read_bytes()
    except (OSError, ValueError, RecursionError, ConfigurationError) as error:
        raise ConfigurationError(f"there is no {kind} fit in {folder}: {reason(error)}") from error
    description = description if isinstance(description, dict) else {}
    _check_description(description, kind, model, layer)
    if description.get("sha256") != sha256(content).hexdigest():
        raise ConfigurationError(f"the {kind} fit in {folder} is damaged: its files do not match")
    arrays: Arrays = optional_module("safetensors.numpy").load(content)
    return arrays


def optional_module(name: str) -> ModuleType:
    """Import a module that comes with the extra; say how to install it where it is missing."""
    return optional_packages.optional_module(name, EXTRA)


def _check_description(
    description: Mapping[str, object], kind: str, model: str, layer: Layer
) -> None:
    if description.get("format") != FORMAT or description.get("kind") != kind:
        raise ConfigurationError(
            f"this is a {description.get('kind')} fit of format {description.get('format')}; "
            f"wanted is a {kind} fit of format {FORMAT}"
        )
    fitted = description.get("model"), description.get("layer")
    if fitted != (model, layer):
        raise ConfigurationError(
            f"this {kind} fit is of model {described(fitted[0])}, layer {fitted[1]}; "
            f"it cannot score model {described(model)}, layer {layer}"
        )
