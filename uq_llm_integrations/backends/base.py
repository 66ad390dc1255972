"""The Backend protocol: where tokens come from, and what can be known of them."""

import os
import threading
import weakref
from abc import ABC, abstractmethod
from asyncio import to_thread
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar
from uuid import uuid4

import numpy as np

from uq_llm_integrations.backends.capabilities import Capabilities as Capabilities  # beside Backend
from uq_llm_integrations.backends.capabilities import check_request
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.interruption import OpenCalls
from uq_llm_integrations.backends.model_facts import ModelFacts, model_facts
from uq_llm_integrations.errors import (
    InvalidRequestError,
    MethodUnavailableError,
    UncertaintyError,
    described,
)
from uq_llm_integrations.identity import Itself, digest
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Layer,
    Request,
    SampleMonitor,
    StreamPiece,
    TokenTrace,
)

T = TypeVar("T")

_NOT_COPIED = ("loop", "_open_calls", "_facts")


class Backend(ABC):
    """Generates and scores tokens. Async at heart; `run` and `iterate` are its blocking face.

    Backends are equal where they were made in the same way: a copy equals its original.

    Example:
        >>> with ScriptedBackend(["Paris"]) as backend:
        ...     (candidate,) = backend.run(backend.generate(Request((65,))))
        >>> candidate.text
        'Paris'
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can serve."""

    @abstractmethod
    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""

    @abstractmethod
    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins.

        Where the model's template knows no tools, they are described in a system message. A
        conversation that `continues` ends within its last message.
        """

    async def tokenizer(self) -> object:
        """Return the transformers tokenizer, None where there is none."""
        return None

    @property
    def checkpoint(self) -> Path | None:
        """The folder of this machine in which the model's weights are, None where there is none."""
        return None

    async def facts(self) -> ModelFacts:
        """Return the model's name and hashes; they are taken once."""
        if "_facts" not in self.__dict__:
            tokenizer = await self.tokenizer()  # this may be what brings the weights here
            parts = self.capabilities.model, self.checkpoint, tokenizer
            self.__dict__["_facts"] = await to_thread(model_facts, *parts)
        found: ModelFacts = self.__dict__["_facts"]
        return found

    @abstractmethod
    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text: no special tokens are added."""

    async def encode_data(self, text: str, *, continues: bool = False) -> tuple[int, ...]:
        """Return the token ids of a text in which names of control tokens are text.

        As `encode` does, or with `continues` as `encode_continuation`, which is what a backend
        without control tokens needs.
        """
        return await (self.encode_continuation(text) if continues else self.encode(text))

    @abstractmethod
    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones, as a candidate's text is."""

    @abstractmethod
    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds; joined, they are the text of all.

        A character belongs to the token that completes it, the tokens before add an empty text. One
        that is not complete is left out. Special tokens may add their names.
        """

    @abstractmethod
    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates in their order; cancelling stops the engine's work.

        A candidate that failed has its `error`; where all did, the first error is raised.
        """

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; closing the stream stops the engine's work."""

    @abstractmethod
    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt, in one batch (teacher forcing).

        One that failed has its `error`; where all did, the first error is raised.
        """

    async def score(
        self, prompt_ids: Sequence[int], token_ids: Sequence[int], top_logprobs: int = 0
    ) -> Candidate:
        """Return the trace of given tokens behind a prompt."""
        return (await self.score_all(prompt_ids, [token_ids], top_logprobs))[0]

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return the model's activations at the tokens of each text, from a forward pass.

        All that the inspection names, aligned with the tokens, or an error: MethodUnavailableError
        where the backend has no access to them, InvalidRequestError for a layer that does not exist
        or a text longer than the context.
        """
        raise MethodUnavailableError(
            f"{self.capabilities.model} cannot be inspected: {self.capabilities.why_no_activations}"
        )

    @property
    @abstractmethod
    def loop(self) -> LoopThread:
        """The event loop on which blocking callers' coroutines run."""

    def check(self, request: Request) -> None:
        """Raise InvalidRequestError for a request that can never work."""
        check_request(request, self.capabilities)

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine that uses this backend, blocking."""
        try:
            self.open_calls.check()
            loop = self.loop
        except BaseException:
            coroutine.close()
            raise
        return loop.run(coroutine)

    def iterate(self, stream: AsyncIterator[T]) -> Generator[T, None, None]:
        """Iterate over a stream of this backend, blocking."""
        self.open_calls.check()
        return self.loop.iterate(stream)

    @property
    def open_calls(self) -> OpenCalls:
        """The calls that are under way, which `close` ends."""
        found: OpenCalls | None = self.__dict__.get("_open_calls")
        return found or self.__dict__.setdefault("_open_calls", OpenCalls())

    def close(self) -> None:
        """Give back what the backend holds. Closing twice is harmless.

        Calls that are under way, and all later ones, raise EngineClosedError.
        """
        self.open_calls.close()

    def __getstate__(self) -> dict[str, object]:
        return {name: one for name, one in self.__dict__.items() if name not in _NOT_COPIED}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await to_thread(self.close)

    def _identity(self) -> tuple[object, ...]:
        """Return what this backend was made of, to compare it; by default it equals only itself."""
        return (Itself(self),)

    def identity_parts(self) -> object:
        """Return what its answers depend on, for caches; by default all that it was made of."""
        return self._identity()

    @property
    def fingerprint(self) -> str:
        """What is the same for backends that answer alike, and shows none of their arguments."""
        return digest(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.capabilities.model!r})"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Backend) or type(self) is not type(other):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(type(self))


class Shared:
    """Something that a backend and its copies share; the last of them to leave closes it.

    A copy or a pickle of it is the same object within one process, and in another process, a forked
    child too, a new one made of the same `arguments`. A user that nothing refers to any more counts
    as one that has left.
    """

    _all: ClassVar[weakref.WeakValueDictionary[str, "Shared"]] = weakref.WeakValueDictionary()

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments
        self._pid = os.getpid()
        self._users: list[weakref.ref[object]] = []
        self._lock = threading.Lock()
        self._register(uuid4().hex)

    def join(self, user: object) -> None:
        """Count a user."""
        with self._lock:
            self._users.append(weakref.ref(user))

    def leave(self, user: object) -> bool:
        """Count a user no longer, and return whether nobody is left."""
        with self._lock:
            self._users = [one for one in self._users if (one() or user) is not user]
            if not self._users:
                self._all.pop(self._key, None)
            return not self._users

    def __copy__(self) -> Self:
        return self if self._pid == os.getpid() else self._make_anew()

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[object, ...]:
        return _find_or_make, (type(self), self._key, self._arguments)

    def _make_anew(self) -> Self:
        return type(self)(*self._arguments)

    def _register(self, key: str) -> None:
        self._key = key
        self._all[key] = self


def _find_or_make(kind: type[Shared], key: str, arguments: tuple[object, ...]) -> Shared:
    found = Shared._all.get(key)
    if found is None or found._pid != os.getpid():
        found = kind(*arguments)
        found._register(key)
    return found


def layer_numbers(inspection: Inspection, layers: int) -> dict[Layer, int]:
    """Return the number of each layer to be inspected, in a model of L layers.

    A layer may be counted from the end or be 'middle'; the hidden states have the numbers 0 to L.
    Raises InvalidRequestError for what such a model does not have.
    """
    numbers = {
        layer: layers // 2 if layer == "middle" else layer + (layers + 1) * (layer < 0)
        for layer in inspection.hidden_layers
    }
    for layer, number in numbers.items():
        if not 0 <= number <= layers:
            raise InvalidRequestError(
                f"there is no layer {layer}; allowed are {-layers - 1} to {layers} and 'middle'"
            )
    if inspection.attention not in (None, "bands", "maps"):
        raise InvalidRequestError(
            f"attention is {described(inspection.attention)}; allowed are None, 'bands' and 'maps'"
        )
    return numbers


def failed_candidate(prompt_ids: tuple[int, ...], error: UncertaintyError, size: int) -> Candidate:
    """Return what stands in the place of a candidate that failed: nothing, and why."""
    trace = TokenTrace(size, np.zeros(0), why_inexact=f"the candidate failed: {error}")
    return Candidate(prompt_ids, (), "", trace, "error", error=error)


def kept_candidates(
    outcomes: Sequence[Candidate | BaseException], prompt_ids: tuple[int, ...], size: int
) -> list[Candidate]:
    """Return the candidates, each failed one in its place; raise where all failed.

    An error that is none of ours is raised in any case.
    """
    errors = [one for one in outcomes if isinstance(one, BaseException)]
    foreign = [error for error in errors if not isinstance(error, UncertaintyError)]
    if foreign or (errors and len(errors) == len(outcomes)):
        raise (foreign or errors)[0]
    return [
        failed_candidate(prompt_ids, one, size) if isinstance(one, UncertaintyError) else one
        for one in outcomes
        if not isinstance(one, BaseException) or isinstance(one, UncertaintyError)
    ]
