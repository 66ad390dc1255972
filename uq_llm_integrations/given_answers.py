"""What a model says of given answers: their scores, and whether sources carry them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any, Self, TypeVar

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.prompts import encode_given
from uq_llm_integrations.grounding.attribution import check_grounded, ground_answer
from uq_llm_integrations.grounding.grounded_answer import GroundedAnswer
from uq_llm_integrations.grounding.grounding_options import (
    Grounding,
    Source,
    as_grounding,
    as_question,
    as_sources,
)
from uq_llm_integrations.grounding.observation import as_request, as_result, facts
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Candidate, Request, Result
from uq_llm_integrations.settings import Settings
from uq_llm_integrations.strategies.base import Strategy
from uq_llm_integrations.telemetry.observed_calls import observed
from uq_llm_integrations.truncation import (
    GivenText,
    Ids,
    TruncatedScore,
    joined_result,
    score_truncated_texts,
)

T = TypeVar("T")


class GivenAnswers(ABC):
    """The methods of `UncertaintyModel` that score texts which somebody else may have written."""

    backend: Backend
    settings: Settings
    methods: tuple[str, ...]
    method_options: MethodOptions

    def score(self, prompt: str, completion: str, **options: object) -> Result:
        """Return the scores of a given text as the answer to a prompt (teacher forcing)."""
        return self.backend.run(self.ascore(prompt, completion, **options))

    async def ascore(self, prompt: str, completion: str, **options: object) -> Result:
        """Return what `score` does."""
        model = self.with_options(**options)
        request = await model._request(prompt)
        given = await encode_given(self.backend, completion, is_data=request.is_data)
        return await model.answer(request, GivenText(given))

    def score_truncated(
        self,
        prompt: str,
        texts: Sequence[str | Ids],
        generated: Sequence[Candidate] = (),
        **options: Any,
    ) -> list[TruncatedScore]:
        """Return the scores of several texts, or token ids, behind one prompt.

        Where one is the beginning of a `generated` candidate, its trace is sliced and no forward
        pass is made. `heal` scores what a cut within a token leaves over, too. Each text is decided
        about; HighUncertaintyError has the results of all in `completed`.
        """
        return self.backend.run(self.ascore_truncated(prompt, texts, generated, **options))

    async def ascore_truncated(
        self,
        prompt: str,
        texts: Sequence[str | Ids],
        generated: Sequence[Candidate] = (),
        *,
        heal: bool = False,
        **options: object,
    ) -> list[TruncatedScore]:
        """Return what `score_truncated` does."""
        model = self.with_options(**options)
        request = await model._request(prompt)
        await model._ready()
        with observed("score", self.backend.capabilities.model, request) as call:
            scoring = score_truncated_texts(
                self.backend,
                request,
                texts,
                generated,
                model.methods,
                model.method_options,
                heal=heal,
                policy=model.settings.policy,
            )
            found = await model._in_time(scoring)
            call.result = joined_result(found)
        return found

    def ground(
        self,
        answer: str | Ids,
        sources: Sequence[str | Source],
        question: str = "",
        grounding: Grounding | None = None,
        **options: object,
    ) -> GroundedAnswer:
        """Return how far an answer, a text or token ids, rests on its sources, and on which.

        Its log-probability with all sources, without any, without each and with each alone, in one
        batch, behind the prompt that `grounding` describes, in which names of control tokens are
        text. Raises SourcesTooLongError before any pass.
        """
        return self.backend.run(self.aground(answer, sources, question, grounding, **options))

    async def aground(
        self,
        answer: str | Ids,
        sources: Sequence[str | Source],
        question: str = "",
        grounding: Grounding | None = None,
        **options: object,
    ) -> GroundedAnswer:
        """Return what `ground` does."""
        model = self.with_options(**options)
        given, asked = as_sources(sources), as_question(question)
        how = as_grounding(grounding)
        values = model.settings.chat_template_kwargs
        request = as_request(given, asked, how)
        with observed("ground", self.backend.capabilities.model, request) as call:
            running = ground_answer(self.backend, answer, given, asked, how, values)
            found = await model._in_time(running)
            call.result, call.facts = as_result(found), facts(found)
            check_grounded(found, how)
        return found

    @abstractmethod
    def with_options(self, **options: object) -> Self:
        """Return a copy with some options changed."""

    @abstractmethod
    async def answer(self, request: Request, strategy: Strategy | None = None) -> Result:
        """Run a strategy within the timeout and under the policy."""

    @abstractmethod
    async def _request(self, prompt: str, stop: Sequence[str] = ()) -> Request:
        """Return the request for a prompt."""

    @abstractmethod
    async def _ready(self, *, is_chat: bool = False) -> None:
        """Take in what is known only once an engine runs."""

    @abstractmethod
    async def _in_time(self, running: Awaitable[T], what: str = "answer") -> T:
        """Await something within the timeout."""
