"""What the classes of all frameworks share: settings as fields, and the backend they run on."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.capabilities import MAX_N, SAMPLING_PARAMETERS
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.backends.prompts import encode_given
from uq_llm_integrations.backends.server.arguments import SERVER_ARGUMENTS, server_backend
from uq_llm_integrations.backends.vllm.backend import COMMON_ARGUMENTS, VLLMEngineBackend
from uq_llm_integrations.config import Configuration, configured
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.saved import (
    PROCESS_BOUND,
    LeftBehind,
    SavedFields,
    saved_fields,
    without_process,
)
from uq_llm_integrations.secret_values import BackendArguments
from uq_llm_integrations.settings import Settings, unknown_option


class ModelFace(Settings):
    """Settings as fields of a framework's class, which makes an `UncertaintyModel` of them.

    Any argument that is neither a field nor a sampling parameter is one of the backend's.
    """

    model_config = ConfigDict(frozen=False)

    generator_type: ClassVar[str]
    """The `generator.type` of the configuration files that describe this class."""
    other_generator_types: ClassVar[frozenset[str]] = frozenset()
    """Those of further files that do."""
    model: str | None = None
    """A bundled model ("smollm2"), a folder or a hub name."""
    backend: Backend | None = Field(default=None, exclude=True, repr=False)
    """A ready backend, in place of `model`."""
    engine_args: BackendArguments = Field(default_factory=dict)
    """Arguments of the backend; they can also be given as arguments. Secrets among them are
    `SecretStr`."""
    max_n: int = MAX_N

    refused: ClassVar[frozenset[str]] = frozenset()
    """Options of `Settings` that mean nothing to the class."""
    backend_fields: ClassVar[frozenset[str]] = frozenset({"model", "engine_args", "max_n"})
    """The fields that a backend is made of."""

    @abstractmethod
    def _new_backend(self) -> Backend:
        """Return the backend that the arguments describe; nothing is loaded yet."""

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the model that a YAML file or a dict describes (see `Configuration`)."""
        configuration = Configuration.read(source)
        with configured(source):
            cls._check_generator(configuration.generator.type)
            return cls(**configuration.generator.arguments(), **configuration.given)

    @classmethod
    def _check_generator(cls, kind: str) -> None:
        types = (cls.generator_type, *sorted(cls.other_generator_types))
        if kind not in types:
            raise ConfigurationError(
                f"generator.type is {kind!r}; {cls.__name__} is for "
                f"{' and '.join(map(repr, types))}"
            )

    @classmethod
    def _with_other(cls, own: JsonObject, other: JsonObject) -> JsonObject:
        if not isinstance(own.get("engine_args") or {}, Mapping):
            raise ConfigurationError(
                f"engine_args is no mapping, but {described(own['engine_args'])}"
            )
        for name in other.keys() - COMMON_ARGUMENTS - SERVER_ARGUMENTS:
            if get_close_matches(name, {*cls.model_fields, *SAMPLING_PARAMETERS}, cutoff=0.85):
                raise ConfigurationError(unknown_option(name, cls.model_fields))
        # Tools that save an object by its public attributes give these back, too.
        derived = {"generator_type": cls.generator_type, "model_name": own.get("model")}
        if own.get("base_url") and not own.get("model"):  # the servers said what the name is
            derived["model_name"] = other.get("model_name")
        other = {k: v for k, v in other.items() if k not in derived or v != derived[k]}
        return {**own, "engine_args": {**(own.get("engine_args") or {}), **other}}

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.backend is None or self._backend_given:
            self.backend = self._described(self.backend)
        _ = self.core  # refuses what the backend can never serve
        self._refuse(name for name in self.refused if getattr(self, name) != _default(name))
        return self

    @property
    def _backend_given(self) -> list[str]:
        """The fields, other than `backend`, that say where tokens come from."""
        fields = type(self).model_fields
        return [
            name
            for name in sorted(self.backend_fields)
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]

    def _described(self, given: Backend | None) -> Backend:
        """Return the backend that the fields describe: the given one, where it was made of them.

        Who makes an object of the fields of another one passes both, and may have changed some.
        """
        if given is not None and _made.get(id(given)) is not given:
            return self._ready(given)
        backend = self._new_backend()
        if given is not None and backend == given:
            return given
        _made[id(backend)] = backend
        return backend

    def _ready(self, given: Backend) -> Backend:
        """Return a backend that the fields describe, too, since it is a copy of such a one."""
        with suppress(ConfigurationError):
            if self._new_backend() == given:
                return given
        raise ConfigurationError(f"a ready backend takes no {', '.join(self._backend_given)}")

    @cached_property
    def core(self) -> UncertaintyModel:
        """The model that does all the work, with these fields as its settings, checked again."""
        for value in self.__dict__.values():
            if isinstance(value, LeftBehind):
                raise value.error()
        assert self.backend is not None
        return UncertaintyModel(self.backend, self.updated({}))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._sealed({name: value})[name])
        if name in type(self).model_fields:
            self._forget()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, which shares the backend unless it is deep."""
        copied = super().model_copy(update=update and self._sealed(update), deep=deep)
        copied._forget()
        return copied

    def _forget(self) -> None:
        """Drop what was made of the fields; it is made anew."""
        for name in _DERIVED:
            self.__dict__.pop(name, None)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy with a backend of its own; callbacks and the like are shared."""
        shared = [self.__dict__.get(name) for name in (*PROCESS_BOUND, *_DERIVED)]
        memo = {} if memo is None else memo
        memo.update({id(one): one for one in shared if one is not None})
        copied = super().__deepcopy__(memo)
        copied._forget()
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        # Not that of LlamaIndex, which deletes from the object itself what cannot be pickled.
        state = BaseModel.__getstate__(self)
        fields = {name: one for name, one in self.__dict__.items() if name not in _DERIVED}
        return {**state, "__dict__": without_process(fields)}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        BaseModel.__setstate__(self, state)

    def saved(self, *, with_defaults: bool = False) -> SavedFields:
        """Return the fields as plain data, and what cannot be saved, such as a ready backend."""
        saved = saved_fields(self, with_defaults=with_defaults)
        if not self._is_described:
            saved.other["backend"] = self.backend
        return saved

    @property
    def _is_described(self) -> bool:
        """Whether the saved fields say where tokens come from."""
        return self.model is not None

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self.core.backend.capabilities.model

    def known_context_length(self) -> int | None:
        """Return the most tokens of prompt and answer; None where only a running engine knows."""
        known = self.core.backend.capabilities.context_length
        return known or self.engine_args.get("max_model_len")

    def bound(self, options: Mapping[str, Any]) -> tuple[Self, JsonObject]:
        """Return a copy with those of the options that it knows, and the options left over."""
        known = {*Settings.model_fields, *SAMPLING_PARAMETERS} - {"stop"}
        own = {name: one for name, one in options.items() if name in known}
        rest = {name: one for name, one in options.items() if name not in known}
        if not own:
            return self, rest
        self._refuse(own.keys() & self.refused)
        changed = self.updated(own)
        update = {name: getattr(changed, name) for name in Settings.model_fields}
        return self.model_copy(update=update), rest

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, by the model's own tokenizer; none are added around it.

        The first use starts the engine, as that of any method does.
        """
        backend, allowed = self.core.backend, self.allow_special_tokens
        is_data = self.chat_template if allowed is None else not allowed
        return list(backend.run(encode_given(backend, text, is_data=is_data)))

    def _refuse(self, names: Iterable[str]) -> None:
        for name in names:
            raise ConfigurationError(f"{name} means nothing to {type(self).__name__}")

    def close(self) -> None:
        """Give back the engine; the last one that shares it ends it.

        Calls that are under way, and all later ones, raise EngineClosedError.
        """
        self.core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)


class VLLMFace(ModelFace):
    """Runs on vLLM: on an engine in this program, or with `base_url` on servers.

    The engine starts on first use; objects with the same arguments share it.
    """

    base_url: str | tuple[str, ...] | None = None
    """The address of a `vllm serve`, or a list of them; `model` is then the name that they serve
    it by, and other arguments are those of `VLLMServerBackend` (`headers`, `routes`, ...)."""
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """The key of the servers; an engine in this program needs none."""
    engine: Any = Field(default=None, exclude=True, repr=False)
    """A running `AsyncLLM`, in place of `model`."""
    deadline: float | None = None
    """Seconds without a sign of life of the engine after which a call is aborted, by default 120;
    of servers, those of a whole call, by default 600."""
    restart_engine: int = 1
    """How often the next call starts a fresh engine in the place of one that has died."""

    generator_type: ClassVar[str] = "vllm"
    other_generator_types: ClassVar[frozenset[str]] = frozenset({"vllm_server"})
    backend_fields: ClassVar[frozenset[str]] = ModelFace.backend_fields | {
        "api_key",
        "base_url",
        "engine",
        "deadline",
        "restart_engine",
    }

    @property
    def _is_described(self) -> bool:
        return self.model is not None or self.base_url is not None

    def _new_backend(self) -> Backend:
        limits: JsonObject = {"max_n": self.max_n}
        limits |= {} if self.deadline is None else {"deadline": self.deadline}
        if self.base_url is not None:
            return self._served(limits)
        if self.api_key is not None and "api_key" in self.backend_fields:
            raise ConfigurationError("api_key is that of servers; give their base_url, too")
        limits |= {"restart_engine": self.restart_engine}
        return VLLMEngineBackend(self.model, engine=self.engine, **{**limits, **self.engine_args})

    def _served(self, limits: JsonObject) -> Backend:
        for name in ("engine", "restart_engine"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigurationError(
                    f"{name} is of an engine in this program; with base_url the server has its own"
                )
        own = {"base_url": self.base_url, "model": self.model, "api_key": self.api_key}
        return server_backend({**own, **limits, **self.engine_args})


class HuggingFaceFace(ModelFace):
    """Runs on transformers; further arguments go to `from_pretrained`."""

    generator_type: ClassVar[str] = "huggingface"

    def _new_backend(self) -> Backend:
        options = {"max_n": self.max_n, **self.engine_args}
        return HuggingFaceBackend(_named(self.model), **options)


class HybridFace(ModelFace):
    """Generates on vLLM and looks inside the model to score.

    `mode` says where activations come from: `shared`, the engine's own weights; `resident`, a
    second copy of the model; `sequential`, a copy that is loaded while the engine sleeps.
    """

    mode: Mode = "shared"
    vllm: BackendArguments = Field(default_factory=dict)
    """Arguments of vLLM's engine."""
    huggingface: BackendArguments = Field(default_factory=dict)
    """Arguments of the `HuggingFaceBackend` that scores; none where the mode is `shared`."""

    generator_type: ClassVar[str] = "hybrid"
    backend_fields: ClassVar[frozenset[str]] = ModelFace.backend_fields | {
        "mode",
        "vllm",
        "huggingface",
    }

    def _new_backend(self) -> Backend:
        engine = self.vllm | self.engine_args
        if "base_url" in engine and (key := getattr(self, "api_key", None)):
            engine = {"api_key": key, **engine}  # of the chat class, where it is a field
        model = _named(self.model)
        return hybrid_backend(model, self.mode, engine, self.huggingface, max_n=self.max_n)


_DERIVED = ("core", "_serialized")
"""What the classes and LangChain's make of the fields, and keep."""

_made: WeakValueDictionary[int, Backend] = WeakValueDictionary()
"""The backends that the classes here have made, by their ids."""


def _default(name: str) -> object:
    return Settings.model_fields[name].default


def _named(model: str | None) -> str:
    if model is None:
        raise ConfigurationError("give a `model` or a `backend`")
    return model
