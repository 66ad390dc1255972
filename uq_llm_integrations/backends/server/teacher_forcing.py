"""Teacher forcing by a server: each text is one request, which the prefix cache serves in part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from uq_llm_integrations.backends.base import kept_candidates
from uq_llm_integrations.backends.server.contact import COMPLETIONS, Facts
from uq_llm_integrations.backends.server.fleet import Fleet
from uq_llm_integrations.backends.server.replies import (
    Ids,
    cached_tokens,
    check_prompt,
    given_rows,
    prompt_table,
    trace_or_reason,
    with_rows,
)
from uq_llm_integrations.backends.server.requests import top_k
from uq_llm_integrations.backends.server.routing import prefix_key
from uq_llm_integrations.backends.token_statistics import empty_trace
from uq_llm_integrations.backends.token_table import TokenTable
from uq_llm_integrations.backends.token_texts import TokenReader
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, TokenTrace


class Scoring:
    """Scores continuations of one prompt, all at the same time."""

    def __init__(
        self, fleet: Fleet, facts: Facts, prompt_ids: Ids, top_logprobs: int, texts: TokenReader
    ) -> None:
        self._fleet, self._facts, self._prompt_ids = fleet, facts, prompt_ids
        self._k, self._texts = top_k(top_logprobs, facts), texts
        self._key = prefix_key(prompt_ids, facts.block_size)

    async def candidates(self, continuations: Sequence[Ids]) -> list[Candidate]:
        """Return one candidate for each continuation; one that failed has its error."""
        scores = [self._scored(ids) for ids in continuations]
        outcomes = await asyncio.gather(*scores, return_exceptions=True)
        return kept_candidates(outcomes, self._prompt_ids, self._facts.size)

    async def _scored(self, ids: Ids) -> Candidate:
        if not ids:
            nothing = empty_trace(self._facts.size, self._k or 0)
            return Candidate(self._prompt_ids, (), "", nothing)
        answer = await self._fleet.answer(COMPLETIONS, self._body(ids), self._key)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise EngineError("the server gave no single choice for a text to be scored")
        text = "".join(await self._texts.token_texts(ids))
        cached = cached_tokens(answer, len(self._prompt_ids))
        return Candidate(
            self._prompt_ids, ids, text, self._trace(choices[0], ids), cached_tokens=cached
        )

    def _body(self, ids: Ids) -> dict[str, object]:
        """Return a request that scores a text; the server generates a token, which is unused."""
        body: dict[str, object] = {
            "model": self._facts.model,
            "prompt": [*self._prompt_ids, *ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "return_token_ids": True,
        }
        if self._k is not None:
            body["prompt_logprobs"] = self._k
        if self._facts.has_plugin:
            body["uncertainty"] = "rows" if self._facts.is_exact else False
        if self._facts.is_exact:
            body["uncertainty_from"] = len(self._prompt_ids)
        return body

    def _trace(self, choice: Mapping[str, Any], ids: Ids) -> TokenTrace:
        def read() -> TokenTrace:
            check_prompt(choice, (*self._prompt_ids, *ids))
            return self._table_trace(choice, ids)

        return trace_or_reason(read, self._facts.size)

    def _table_trace(self, choice: Mapping[str, Any], ids: Ids) -> TokenTrace:
        first, size = len(self._prompt_ids), self._facts.size
        rows, why = None, self._facts.why_inexact
        if self._facts.is_exact:
            rows, why = given_rows(choice.get("prompt_uncertainty"), ids, first)
        if self._k is None:
            if rows is None:
                raise EngineError(why or "there are none")
            return TokenTable.of_rows(rows, ids).trace(size, rows, why)
        whole = (*self._prompt_ids, *ids)
        table = prompt_table(choice.get("prompt_logprobs"), whole, first, self._k, size)
        return (table if rows is None else with_rows(table, rows)).trace(size, rows, why)
