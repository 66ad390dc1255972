"""The first contact: what a server can serve, by its plugin or by what plain vLLM says."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from uq_llm_integrations.backends.server.wire import Answer
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineError,
    ModelNotFoundError,
    described,
)

VERSION = 1
"""Of the contract between this client and the plugin."""

VERSIONS = "package_version", "vllm_version"
"""What may be another one once a server has come back."""

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
UQ = "/v1/uq"

WHY_NO_PLUGIN = (
    "the server has no uq_llm plugin (VLLM_PLUGINS=uq_llm vllm serve ...), so that entropies are "
    "bounded by its top log-probabilities"
)

USUAL_TOP = 20
"""The k that bounds are made of, and vLLM's own default for the largest."""

_MOST_TOKENS, _MOST_CONTEXT = 2**22, 2**31 - 1
"""More than any vocabulary, and any context, has."""


@dataclass(frozen=True)
class Facts:
    """What a server said of itself. Servers of one backend must say the same."""

    model: str
    package_version: str | None
    """The plugin's, None for a server without it."""
    vllm_version: str | None
    vocabulary_size: int | None
    context_length: int | None
    max_logprobs: int
    why_inexact: str | None
    tokenizer: str | None = None
    has_chat_template: bool = True
    block_size: int = 16

    @property
    def has_plugin(self) -> bool:
        """Whether it speaks the plugin's contract."""
        return self.package_version is not None

    @property
    def is_exact(self) -> bool:
        """Whether its statistics are of the whole distribution."""
        return self.why_inexact is None

    @property
    def size(self) -> int:
        """Tokens of the vocabulary; more than it can have where that is not known."""
        return self.vocabulary_size or _MOST_TOKENS

    @property
    def fallback_k(self) -> int:
        """The k of bounds."""
        return USUAL_TOP if self.max_logprobs == -1 else min(self.max_logprobs, USUAL_TOP)


class Ask(Protocol):
    """Asks one server, whatever the status of its answer."""

    def __call__(self, path: str, body: Mapping[str, object] | None = None) -> Awaitable[Answer]:
        """Return its answer."""


class Contact:
    """Meets one server; `refuse` raises the error of an answer that is none."""

    def __init__(self, url: str, ask: Ask, refuse: Any, model: str | None) -> None:
        self._url, self._ask, self._refuse, self._model = url, ask, refuse, model

    async def facts(self, *, only_completions: bool) -> Facts:
        """Return what the server is."""
        if only_completions:
            return await self._by_completions()
        answer = await self._ask(f"{UQ}/capabilities")
        if answer.status == 200:
            return await self._of_plugin(self._object(answer))
        if answer.status not in (404, 405):
            self._refuse(self._url, answer)
        return await self._of_plain_server()

    async def _of_plugin(self, found: Mapping[str, Any]) -> Facts:
        if (version := found.get("version")) != VERSION:
            raise ConfigurationError(
                f"{self._url} has a plugin of version {described(version)}; this package reads "
                f"version {VERSION}: use the same version of the package on both sides"
            )
        if (columns := found.get("columns")) != list(COLUMNS):
            raise ConfigurationError(
                f"{self._url} gives the columns {described(columns)}; this package reads "
                f"{', '.join(COLUMNS)}"
            )
        served = self._text(found, "model")
        model = served if self._model in (None, served) else (await self._listed())[0]
        return Facts(
            model,
            self._text(found, "package_version"),
            self._text(found, "vllm_version"),
            self._whole(found, "vocabulary_size", 1, _MOST_TOKENS),
            self._whole(found, "context_length", 1, _MOST_CONTEXT),
            self._whole(found, "max_logprobs", -1, _MOST_CONTEXT),
            _why_inexact(found),
            tokenizer=str(found.get("tokenizer")),
            has_chat_template=found.get("has_chat_template") is not False,
            block_size=self._whole({"block_size": 16, **found}, "block_size", 1, _MOST_CONTEXT),
        )

    async def _of_plain_server(self) -> Facts:
        model, context = await self._listed()
        version = await self._ask("/version")
        stated = self._object(version).get("version") if version.status == 200 else None
        size, most = await self._limits(model)
        return Facts(model, None, stated and str(stated), size, context, most, WHY_NO_PLUGIN)

    async def _by_completions(self) -> Facts:
        model = str(self._model)
        size, most = await self._limits(model)
        told = await self._refusal(model, {"max_tokens": _MOST_CONTEXT})
        context = _number(r"max_model_len=(\d+)|context length is (\d+)", told)
        probe = {"uncertainty": "rows", "max_tokens": 1, "return_token_ids": True}
        answer = await self._ask(COMPLETIONS, {"model": model, "prompt": [0], **probe})
        if answer.status != 200:
            self._refuse(self._url, answer)
        choice = _first(self._object(answer).get("choices"))
        found = choice.get("uncertainty")
        plugin = found if isinstance(found, Mapping) else None
        if plugin is not None and plugin.get("version") != VERSION:
            raise ConfigurationError(
                f"{self._url} has a plugin of version {described(plugin.get('version'))}; this "
                f"package reads version {VERSION}"
            )
        why = WHY_NO_PLUGIN if plugin is None else _why_inexact(plugin)
        return Facts(model, None if plugin is None else "", None, size, context, most, why)

    async def _listed(self) -> tuple[str, int | None]:
        """Return the model's name and its context, from the list of those that are served."""
        answer = await self._ask("/v1/models")
        if answer.status != 200:
            self._refuse(self._url, answer)
        models = self._object(answer).get("data")
        if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
            raise EngineError(f"{self._url} gave a list of models that cannot be read")
        named = {str(one.get("id")): one for one in models}
        name = self._model or next(iter(named), "")
        if name not in named:
            raise ModelNotFoundError(
                f"{self._url} does not serve {name!r}; it serves {', '.join(named) or 'nothing'}"
            )
        length = named[name].get("max_model_len")
        is_length = type(length) is int and 1 <= length <= _MOST_CONTEXT
        return name, length if is_length else None

    async def _limits(self, model: str) -> tuple[int | None, int]:
        """Return the vocabulary's size and the largest k, which plain vLLM says when it refuses."""
        told = await self._refusal(model, {"stop_token_ids": [_MOST_CONTEXT]})
        size = _number(r"Vocabulary size: (\d+)", told)
        told = await self._refusal(model, {"logprobs": _MOST_CONTEXT})
        most = _number(r"max allowed: (\d+)", told)
        is_size = size is not None and 1 <= size <= _MOST_TOKENS
        if most is None:
            return (size if is_size else None), USUAL_TOP
        return (size if is_size else None), -1 if most == size else most

    async def _refusal(self, model: str, wrong: Mapping[str, object]) -> str:
        """Return what the server says to a request that it must refuse."""
        body = {"model": model, "prompt": [0], "max_tokens": 1, **wrong}
        answer = await self._ask(COMPLETIONS, body)
        if answer.status in (401, 403) or answer.status >= 500:
            self._refuse(self._url, answer)
        return answer.data[:4096].decode(errors="replace") if answer.status != 200 else ""

    def _object(self, answer: Answer) -> dict[str, Any]:
        try:
            found = json.loads(answer.data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise EngineError(f"{self._url} gave an answer that is no JSON object")
        return found

    def _text(self, found: Mapping[str, Any], name: str) -> str:
        value = found.get(name)
        if not isinstance(value, str) or not value:
            raise EngineError(f"{self._url} gave {name} {described(value)}; it must be a text")
        return value

    def _whole(self, found: Mapping[str, Any], name: str, low: int, high: int) -> int:
        value = found.get(name)
        if type(value) is not int or not low <= value <= high:
            raise EngineError(
                f"{self._url} gave {name} {described(value)}; allowed are {low} to {high}"
            )
        return value


def _why_inexact(found: Mapping[str, Any]) -> str | None:
    if found.get("exact") is True:
        return None
    return str(found.get("reason") or "the server gave no reason")[:600]


def check_alike(met: Sequence[tuple[str, Facts]], *, but: Collection[str] = ()) -> None:
    """Raise ConfigurationError where servers differ, with their addresses and in what."""
    for url, facts in met[1:]:
        first_url, first = met[0]
        for one in fields(Facts):
            ours, theirs = getattr(first, one.name), getattr(facts, one.name)
            if ours != theirs and one.name not in {"block_size", *but}:
                raise ConfigurationError(
                    f"the servers differ in {one.name}: {first_url} has {ours!r} and {url} has "
                    f"{theirs!r}; all of them must serve the same"
                )


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    digits = next((one for one in found.groups() if one), None) if found else None
    return int(digits) if digits and len(digits) < 12 else None


def _first(choices: object) -> Mapping[str, Any]:
    is_list = isinstance(choices, list) and bool(choices)
    return choices[0] if is_list and isinstance(choices[0], Mapping) else {}  # type: ignore[index]
