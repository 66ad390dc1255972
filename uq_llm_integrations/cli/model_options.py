"""The options by which commands name a model, and the model of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from uq_llm_integrations.config import load_mapping
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.plain_data import load_yaml
from uq_llm_integrations.settings import combined

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of colours.")]

API_KEY = "UQ_LLM_API_KEY"
"""The variable with the key of the servers."""

_DEFAULTS = {
    "methods": ["entropy", "perplexity", "maxprob", "self_certainty"],
    "temperature": 0.0,
    "max_tokens": 256,
}


@dataclass(frozen=True)
class ModelOptions:
    """Which model, where it runs, and what it scores by."""

    model: Annotated[str | None, typer.Option(help='"smollm2", a model folder or a hub name.')] = (
        None
    )
    config: Annotated[Path | None, typer.Option(help="A configuration file.")] = None
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="A name from `uq-llm methods`; may be repeated."),
    ] = None
    raw: Annotated[bool, typer.Option("--raw", help="Do not use the chat template.")] = False
    compile_model: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model: slower to start, faster to answer."),
    ] = False
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what the engine logs.")] = False
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="The address of a running server; may be repeated for several of them."),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The servers' key; by default it is in UQ_LLM_API_KEY, where others cannot read "
            "it."
        ),
    ] = None


def model_of(
    chosen: ModelOptions,
    settings: Mapping[str, str | None],
    defaults: Mapping[str, object] | None = None,
) -> UncertaintyModel:
    """Return the model that the options describe; no engine is started.

    `defaults` hold where there is no configuration file.
    """
    given = {name: _value(name, text) for name, text in settings.items() if text is not None}
    given |= {"methods": chosen.method} if chosen.method else {}
    given |= {"chat_template": False} if chosen.raw else {}
    file = (
        {**_DEFAULTS, "chat_template": True, **(defaults or {})}
        if chosen.config is None
        else load_mapping(chosen.config)
    )
    generator = _generator(chosen)
    if isinstance(found := file.get("generator", {}), Mapping) and (found or generator):
        file["generator"] = _with_key({**found, **generator})
    return UncertaintyModel.from_config(combined(file, given))


def _generator(chosen: ModelOptions) -> dict[str, object]:
    """Return what the command line says of where tokens come from."""
    if chosen.compile_model and chosen.base_url:
        raise ConfigurationError("--compile is of an engine in this program, not of a server")
    if chosen.config is None and not chosen.base_url:
        given: dict[str, object] = {
            "model": chosen.model or "smollm2",
            "enforce_eager": not chosen.compile_model,
        }
    else:
        given = {"model": chosen.model} if chosen.model else {}
    given |= {"type": "vllm_server", "base_url": chosen.base_url} if chosen.base_url else {}
    return given | ({"api_key": SecretStr(chosen.api_key)} if chosen.api_key else {})


def _with_key(generator: dict[str, object]) -> dict[str, object]:
    """Return a generator with the key out of the environment, where it is one of servers."""
    key = os.environ.get(API_KEY)
    if key and generator.get("type") == "vllm_server":
        return {"api_key": SecretStr(key), **generator}
    return generator


def _value(name: str, text: str) -> object:
    try:
        return load_yaml(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}") from error
