"""What can be asked of a backend by code that does no I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from uq_llm_integrations.records import Inspection, Request, SampleMonitor

T = TypeVar("T")


@dataclass(frozen=True)
class Generate:
    """Continue this prompt; the answer is `request.n` candidates.

    `monitor` may leave some of them early.
    """

    request: Request
    monitor: SampleMonitor | None = None


@dataclass(frozen=True)
class Rescore:
    """Score given continuations of a prompt; the answer is a candidate for each."""

    prompt_ids: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    top_logprobs: int = 0


@dataclass(frozen=True)
class Inspect:
    """Look inside the model while texts pass through it; the answer is `Activations` for each."""

    texts: tuple[tuple[int, ...], ...]
    inspection: Inspection


@dataclass(frozen=True)
class Encode:
    """Turn text into tokens: a prompt, a user's turn (`chat`), or what follows other text."""

    text: str
    chat: bool = False
    follows: bool = False


@dataclass(frozen=True)
class Decode:
    """Turn tokens into text; the answer is the text."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """Tell the text that each token adds; the answer is a list of them."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Compute:
    """Run a long computation aside; the answer is what it returns."""

    run: Callable[[], Any]


@dataclass(frozen=True)
class Together:
    """Run several generators of wishes at once; the answer is the list of what they return."""

    parts: tuple[Generator[Any, Any, Any], ...]


Asking = Generator[Any, Any, T]
"""A run that asks wishes and returns a T. A backend's error is thrown in where it was asked."""
