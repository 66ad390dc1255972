"""The configuration file: a model, its scores, and what to do about them, as YAML or a dict.

generator: {type: vllm, model: smollm2, gpu_memory_utilization: 0.9}
methods: [entropy, perplexity]
sampling: {temperature: 0.7, max_tokens: 128}
strategy: {type: retry, when: perplexity > 1.8, strategy: {type: best_of_n, n: 8}}
uncertain_when: perplexity > 1.8 or entropy > 2
on_high_uncertainty: abstain

Every option of `Settings` stands in it under its own name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.backends.server.arguments import server_backend
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.config_places import Place, with_line
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
    UncertaintyError,
    described,
)
from uq_llm_integrations.plain_data import load_yaml, read_text
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.secret_names import SECRETS, is_secret_name, sealed
from uq_llm_integrations.secret_values import BackendArguments
from uq_llm_integrations.settings import Settings

_REFERENCE = re.compile(r"\$\{(\w+)\}")


class _Generator(BaseModel):
    """Every further option is an argument of the engine or of the Hugging Face backend."""

    model_config = ConfigDict(extra="allow")

    model: str

    def arguments(self) -> JsonObject:
        """Return the arguments of the frameworks' classes."""
        return {"model": self.model, "engine_args": dict(self.model_extra or {})}


class VLLMGenerator(_Generator):
    """vLLM's engine."""

    type: Literal["vllm"]

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return VLLMEngineBackend(self.model, **dict(self.model_extra or {}))


class ServerGenerator(BaseModel):
    """Servers of vLLM; every further option is an argument of `VLLMServerBackend`."""

    model_config = ConfigDict(extra="allow")

    type: Literal["vllm_server"]
    base_url: str | tuple[str, ...]
    """The address of a server, or a list of them."""
    model: str | None = None
    """The name that they serve the model by; what they serve where it is left out."""
    api_key: SecretStr | None = None

    def arguments(self) -> JsonObject:
        """Return the arguments of the frameworks' classes."""
        own = {"base_url": self.base_url, "model": self.model, "api_key": self.api_key}
        return {**own, **sealed(dict(self.model_extra or {}))}

    def backend(self) -> Backend:
        """Return the backend; no server is asked yet."""
        return server_backend(self.arguments())


class HuggingFaceGenerator(_Generator):
    """Hugging Face transformers."""

    type: Literal["huggingface"]

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return HuggingFaceBackend(self.model, **dict(self.model_extra or {}))


class HybridGenerator(BaseModel):
    """vLLM generates, the inside of the model is looked at as `mode` says."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["hybrid"]
    model: str
    mode: Mode | None = None
    """By default `resident` with a `huggingface` section, else `shared`."""
    vllm: BackendArguments = Field(default_factory=dict)
    huggingface: BackendArguments = Field(default_factory=dict)

    def arguments(self) -> JsonObject:
        """Return the arguments of the frameworks' classes."""
        mode = self.mode or ("resident" if self.huggingface else "shared")
        own = {"vllm": self.vllm, "huggingface": self.huggingface}
        return {"model": self.model, "mode": mode, **own}

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return hybrid_backend(**self.arguments())


def _with_type(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {"type": "vllm_server" if "base_url" in value else "vllm", **value}


Generator = Annotated[
    Annotated[
        VLLMGenerator | ServerGenerator | HuggingFaceGenerator | HybridGenerator,
        Field(discriminator="type"),
    ],
    BeforeValidator(_with_type),
]


@contextmanager
def configured(source: object = None) -> Iterator[None]:
    """Make what no request may have a mistake of the configuration that it stands in.

    Where the source is a file, its path and line are said, also of what shows after it was read.
    """
    try:
        yield
    except MissingDependencyError:
        raise  # the file is right
    except (InvalidRequestError, ConfigurationError) as error:
        wrong = error
        if isinstance(error, InvalidRequestError):
            wrong = ConfigurationError(str(error))
        if isinstance(source, str | Path):
            with_line(wrong, Path(source), ())
        if wrong is error:
            raise
        raise wrong from error


class Configuration(Settings):
    """A whole configuration file: the options of `Settings`, and where tokens come from.

    `scorer: {type: [...]}` is another way to write `methods`.

    Example:
        >>> Configuration.read({"generator": {"model": "smollm2"}, "methods": "entropy"}).methods
        ('entropy',)
    """

    generator: Generator
    scorer: dict[Literal["type"], str | list[str]] | None = None

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> Configuration:
        """Read a YAML file or a dict; raise ConfigurationError that names what is wrong where."""
        if not isinstance(source, Mapping | str | Path):
            kind = type(source).__name__  # not its value, with a secret in it
            raise ConfigurationError(f"{kind} is neither the path of a file nor a mapping")
        if isinstance(source, Mapping):
            return cls._of(source)
        plain = load_mapping(path := Path(source))
        try:
            return cls._of(plain)
        except UncertaintyError as error:
            with_line(error, path, cls._place(plain))
            raise

    @classmethod
    def _of(cls, plain: Mapping[Any, Any]) -> Configuration:
        if wrong := [name for name in plain if not isinstance(name, str)]:
            raise ConfigurationError(f"the name of an option is {described(wrong[0])}, not a text")
        try:
            with configured():
                return cls(**_with_methods(with_secrets(plain)))
        except RecursionError as error:
            raise ConfigurationError("a value stands too deep, or contains itself") from error

    @classmethod
    def _place(cls, plain: Mapping[str, Any]) -> Place:
        """Return where the first thing is that pydantic finds wrong, () where it does not know."""
        try:
            BaseModel.__init__(cls.__new__(cls), **_with_methods(with_secrets(plain)))
        except ValidationError as error:
            place = error.errors(include_url=False, include_input=False)[0]["loc"]
            in_scorer = place[:1] == ("methods",) and "scorer" in plain
            return ("scorer", "type", *place[1:]) if in_scorer else place
        except (UncertaintyError, TypeError):  # found before pydantic reads anything
            return ()
        return ()

    @property
    def given(self) -> JsonObject:
        """The options of `Settings` that the file sets, so that defaults stay in one place."""
        names = self.model_fields_set & Settings.model_fields.keys()
        return {name: getattr(self, name) for name in names}

    @property
    def settings(self) -> Settings:
        """The options without the generator."""
        return Settings(**self.given)


def _with_methods(plain: JsonObject) -> JsonObject:
    if "scorer" not in plain:
        return plain
    scorer = plain["scorer"]
    if "methods" in plain or not isinstance(scorer, Mapping) or set(scorer) != {"type"}:
        raise ConfigurationError("scorer has one option, `type`, and takes the place of `methods`")
    rest = {name: value for name, value in plain.items() if name != "scorer"}
    return {**rest, "methods": scorer["type"]}


def with_secrets(value: Any, path: str = "") -> Any:
    """Return plain data with `${NAME}` replaced where a secret belongs.

    Raises ConfigurationError for a reference anywhere else, and for a variable that is not set.
    """
    if isinstance(value, Mapping):
        return {key: with_secrets(part, f"{path}.{key}".lstrip(".")) for key, part in value.items()}
    if isinstance(value, list):
        return [with_secrets(part, f"{path}.{index}") for index, part in enumerate(value)]
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return _secret(found.group(1), path) if found else value


def _secret(variable: str, path: str) -> SecretStr:
    if not any(map(is_secret_name, path.split("."))):
        allowed = ", ".join(sorted(SECRETS))
        raise ConfigurationError(f"{path}: only secrets come from the environment: {allowed}")
    if variable not in os.environ:
        raise ConfigurationError(f"{path}: the environment has no variable {variable}")
    return SecretStr(os.environ[variable])


def load_mapping(path: Path) -> JsonObject:
    """Return what a YAML file says; raise ConfigurationError where it is no mapping."""
    text = read_text(path)
    try:
        loaded = load_yaml(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigurationError(f"{path} is no mapping of names to values")
    return loaded
