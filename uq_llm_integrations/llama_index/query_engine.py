"""A query engine that returns how sure the model was of its answer, and acts on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.grounding.grounding_options import Grounding
from uq_llm_integrations.llama_index.events import NOTHING_SAID, Collection, ScoredCall, said_by
from uq_llm_integrations.llama_index.grounding import node_grounding
from uq_llm_integrations.llama_index.llm import RESAMPLING
from uq_llm_integrations.report.metadata import (
    GROUNDING,
    check_metadata_condition,
    is_uncertain,
)
from uq_llm_integrations.strategies.abstain import ABSTENTION, Action, check_action
from uq_llm_integrations.strategies.base import check_count
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition


class UncertaintyQueryEngine(BaseQueryEngine):
    """Runs another query engine and puts scores into `response.metadata["uncertainty"]`.

    `final` has those of the last call that said the answer, `calls` those of every call, and
    `aggregate` the highest score of any call for each method. An answer that was put together from
    several calls' texts, as by `accumulate`, is as uncertain as its most uncertain part: `parts`
    has the metadata of all, and `final` those of the first that is uncertain. `uncertain_when`, an
    object or its text, is about `final`; without one, what its model decided counts. An uncertain
    answer is sampled again up to `retries` times, with a seed of its own and at `temperature`, and
    then comes `on_high_uncertainty`: 'annotate', 'abstain' (another text, the answer is kept as
    `original_text`; an object has no place for it and is raised), or 'raise'. To act on a streamed
    answer it is read to its end first.

    With `grounding`, True or a `Grounding`, each answer is measured against the nodes that were
    retrieved, by the model that gave it, and `grounding` in the metadata has what was found. One
    whose support is below `least_support` nats, or unknown, counts as uncertain. A condition that
    reads the support (`support < 2`) decides in the place of `least_support`.

    An answer of another provider's model has no scores and raises InvalidRequestError, unless
    `allow_unscored`; so does one without the scores that the condition needs. An answer that no
    model gave, such as that there are no documents or what a program has computed, has None as
    `final` and counts as uncertain.
    """

    def __init__(
        self,
        inner: BaseQueryEngine,
        uncertain_when: Condition | str | None = None,
        on_high_uncertainty: Action = "annotate",
        abstention_text: str = ABSTENTION,
        retries: int = 0,
        temperature: float = 0.7,
        *,
        allow_unscored: bool = False,
        grounding: Grounding | bool = False,
        least_support: float | None = None,
    ) -> None:
        check_count("retries", retries, 0)
        when = None if uncertain_when is None else as_condition(uncertain_when)
        check_metadata_condition(when)
        check_action(on_high_uncertainty, "on_high_uncertainty")
        super().__init__(inner.callback_manager)
        self._inner, self._when, self._action = inner, when, on_high_uncertainty
        self._text, self._retries, self._temperature = abstention_text, retries, temperature
        self._allows = allow_unscored
        reads_support = when is not None and when.needs_sources
        self._grounding = node_grounding(grounding, least_support, is_needed=reads_support)
        self._has_least = self._grounding is not None and not reads_support

    def _get_prompt_modules(self) -> PromptMixinType:
        """Return the inner engine, whose prompts these are."""
        return {"inner": self._inner}

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return what the inner engine retrieves."""
        return self._inner.retrieve(query_bundle)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        earlier: list[dict[str, Any]] = []
        while True:
            collection = Collection()
            with collection.open(), self._resampling(len(earlier)):
                response = self._inner.query(query_bundle)
                if isinstance(response, StreamingResponse) and self._acts:
                    response = response.get_response()
            if isinstance(response, StreamingResponse):
                return self._scored_at_end(response, collection, query_bundle)
            self._ground(collection, query_bundle, str(response), response.source_nodes)
            if self._is_last(response, collection, earlier):
                return self._concluded(response, collection, earlier)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        earlier: list[dict[str, Any]] = []
        while True:
            collection = Collection()
            with collection.open(), self._resampling(len(earlier)):
                response = await self._inner.aquery(query_bundle)
                if isinstance(response, AsyncStreamingResponse) and self._acts:
                    response = await response.get_response()
            if isinstance(response, AsyncStreamingResponse):
                return self._ascored_at_end(response, collection, query_bundle)
            await self._aground(collection, query_bundle, str(response), response.source_nodes)
            if self._is_last(response, collection, earlier):
                return self._concluded(response, collection, earlier)

    @property
    def _acts(self) -> bool:
        return self._action != "annotate" or self._retries > 0

    @contextmanager
    def _resampling(self, attempt: int) -> Generator[None, None, None]:
        again = {"seed": attempt, "temperature": self._temperature}
        token = RESAMPLING.set(again if attempt else RESAMPLING.get())
        try:
            yield
        finally:
            RESAMPLING.reset(token)

    def _ground(
        self, collection: Collection, query: QueryBundle, answer: str, nodes: list[NodeWithScore]
    ) -> None:
        if self._grounding is not None:
            self._grounding.ground(collection, query.query_str, answer, nodes)

    async def _aground(
        self, collection: Collection, query: QueryBundle, answer: str, nodes: list[NodeWithScore]
    ) -> None:
        if self._grounding is not None:
            await self._grounding.aground(collection, query.query_str, answer, nodes)

    def _is_last(
        self, response: Any, collection: Collection, earlier: list[dict[str, Any]]
    ) -> bool:
        """Return whether no further attempt is made; otherwise note this one."""
        answer = str(response)
        if len(earlier) >= self._retries or not self._is_uncertain(collection, answer):
            return True
        earlier.append({"text": answer, "uncertainty": self._final(collection, answer)})
        return False

    def _concluded(
        self, response: RESPONSE_TYPE, collection: Collection, earlier: Sequence[dict[str, Any]]
    ) -> RESPONSE_TYPE:
        summary = self._summary(collection, str(response))
        summary["decision"] = "retried" if earlier else "accepted"
        if earlier:
            summary["attempts"] = list(earlier)
        if summary["uncertain"] and self._action != "annotate":
            self._act(response, summary)
        response.metadata = {**(response.metadata or {}), "uncertainty": summary}
        return response

    def _act(self, response: Any, summary: dict[str, Any]) -> None:
        if self._action == "raise" or not isinstance(response, Response):
            raise HighUncertaintyError(self._why(summary), text=str(response), uncertainty=summary)
        summary |= {"decision": "abstained", "original_text": response.response}
        response.response = self._text

    def _why(self, summary: dict[str, Any]) -> str:
        """Return the condition that the answer meets."""
        grounding = summary.get(GROUNDING)
        if self._has_least and grounding and not grounding["is_grounded"]:
            return f"{grounding['decision']['condition']}: {grounding['reason']}"
        return repr(self._when) if self._when is not None else "its model says so"

    def _is_uncertain(self, collection: Collection, answer: str) -> bool:
        grounding = collection.grounding
        if self._has_least and grounding is not None and not grounding["is_grounded"]:
            return True
        parts = said_by(collection.calls, answer)
        if not parts:  # no model gave it, or another provider's
            is_nobodys = not collection.unscored or answer.strip() == NOTHING_SAID
            return is_nobodys or self._judges(None, collection)
        return any(self._judges(part.uncertainty, collection) for part in parts)

    def _judges(self, metadata: dict[str, Any] | None, collection: Collection) -> bool:
        if metadata is not None and collection.grounding is not None:
            metadata = {**metadata, GROUNDING: collection.grounding}
        return is_uncertain(self._when, metadata, allow_unscored=self._allows)

    def _final(self, collection: Collection, answer: str) -> dict[str, Any] | None:
        """Return the scores of what makes the answer uncertain, or else of its last part."""
        parts = [one.uncertainty for one in said_by(collection.calls, answer)]
        doubtful = (one for one in parts[:-1] if self._judges(one, collection))
        return next(doubtful, parts[-1] if parts else None)

    def _summary(self, collection: Collection, answer: str) -> dict[str, Any]:
        calls, parts = collection.calls, said_by(collection.calls, answer)
        summary = {
            "final": self._final(collection, answer),
            "calls": [{"text": call.text, "uncertainty": call.uncertainty} for call in calls],
            "aggregate": _highest(calls),
            "uncertain": self._is_uncertain(collection, answer),
            "decision": "accepted",
        }
        if len(parts) > 1:
            summary["parts"] = [call.uncertainty for call in parts]
        if collection.grounding is not None:
            summary[GROUNDING] = collection.grounding
        return summary

    def _scored_at_end(
        self, response: StreamingResponse, collection: Collection, query: QueryBundle
    ) -> StreamingResponse:
        """Return the response; its metadata has the scores once its tokens have been read."""
        tokens, shown = iter(response.response_gen), []

        def read() -> Generator[str, None, None]:
            while True:
                with collection.open():
                    token = next(tokens, None)
                if token is None:
                    break
                shown.append(token)
                yield token
            self._ground(collection, query, "".join(shown), response.source_nodes)
            summary = self._summary(collection, "".join(shown))
            response.metadata = {**(response.metadata or {}), "uncertainty": summary}

        response.response_gen = read()
        return response

    def _ascored_at_end(
        self, response: AsyncStreamingResponse, collection: Collection, query: QueryBundle
    ) -> AsyncStreamingResponse:
        """Return the response; its metadata has the scores once its tokens have been read."""
        tokens, shown = response.response_gen, []

        async def read() -> AsyncGenerator[str, None]:
            while True:
                with collection.open():
                    token = await anext(tokens, None)
                if token is None:
                    break
                shown.append(token)
                yield token
            await self._aground(collection, query, "".join(shown), response.source_nodes)
            summary = self._summary(collection, "".join(shown))
            response.metadata = {**(response.metadata or {}), "uncertainty": summary}

        response.response_gen = read()
        return response


def _highest(calls: Sequence[ScoredCall]) -> dict[str, float | None]:
    """Return the highest score of each method; None where one of them is not known."""
    scores = [call.uncertainty["scores"] for call in calls]
    names = dict.fromkeys(name for one in scores for name in one)
    values = {name: [one.get(name) for one in scores] for name in names}
    return {name: None if None in each else max(each) for name, each in values.items()}
