"""Gathers what methods ask for, each thing once for all candidates of a prompt.

What is gathered has lm-polygraph's names. Its values are lists with one entry for each candidate;
what belongs to the prompt is the same in every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.wishes import Asking, Decode
from uq_llm_integrations.records import Candidate, Request

Provider = Callable[["Gathering"], Asking[list[Any]]]

PROVIDERS: dict[str, Provider] = {}
"""What can be gathered, and how."""


class EvidenceError(UncertaintyError):
    """What a method needs could not be gathered; the message says why."""


def provides(*names: str) -> Callable[[Provider], Provider]:
    """Enter a provider; one of several names returns a list of dicts with these keys."""

    def enter(provider: Provider) -> Provider:
        for name in names:
            PROVIDERS[name] = provider
        return provider

    return enter


@dataclass
class Gathering:
    """What is known so far of the candidates of one prompt."""

    request: Request
    candidates: Sequence[Candidate]
    method_options: MethodOptions
    wanted: frozenset[str] = frozenset()
    """All names that will be asked for, so that one look inside the model can serve several."""
    _found: dict[Provider, list[Any] | UncertaintyError] = field(default_factory=dict)
    _question: str | None = None

    def get(self, name: str) -> Asking[list[Any]]:
        """Return one entry for each candidate; raise EvidenceError where it cannot be had."""
        provider = PROVIDERS[name]
        if provider not in self._found:
            try:
                self._found[provider] = yield from provider(self)
            except UncertaintyError as error:
                self._found[provider] = error
        found = self._found[provider]
        if isinstance(found, UncertaintyError):
            raise found
        return [one[name] if isinstance(one, dict) and name in one else one for one in found]

    def one(self, name: str) -> Asking[Any]:
        """Return what belongs to the prompt."""
        return (yield from self.get(name))[0]

    def question(self) -> Asking[str]:
        """Return the prompt's text."""
        if self._question is None:
            self._question = self.request.text or (yield Decode(self.request.prompt_ids))
        return self._question

    def source(self, names: Sequence[str]) -> str | None:
        """Return what judged entailment or similarity, where some evidence rests on it."""
        if any("semantic" in name or "nli" in name for name in names):
            return self.method_options.entailment.name
        if any("similarity" in name for name in names):
            return self.method_options.similarity.name
        return None

    def for_each(self, value: Any) -> list[Any]:
        """Return what belongs to the prompt, once for each candidate."""
        return [value] * len(self.candidates)
