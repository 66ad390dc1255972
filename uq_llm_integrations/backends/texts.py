"""The texts of tokens: as they come in a stream, and of the alternatives at each place."""

from __future__ import annotations

from collections.abc import Sequence

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.records import TokenTrace

# A token's text depends on those just before it: some tokenizers drop a leading space, and a
# character may span tokens.
_BEFORE = 8


class GrowingTexts:
    """The text that each token of a stream adds."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._before: tuple[int, ...] = ()

    async def of(self, token_ids: Sequence[int]) -> list[str]:
        """Return the texts of the tokens that came next."""
        ids = (*self._before, *token_ids)
        texts = await self._backend.token_texts(ids)
        known, self._before = len(self._before), ids[-_BEFORE:]
        return texts[known:]


async def top_texts(backend: Backend, trace: TokenTrace) -> dict[int, str]:
    """Return the texts of all alternatives that the trace has, by their ids."""
    ids = set(trace.top_ids.ravel().tolist()) if trace.top_ids is not None else set()
    return {one: "".join(await backend.token_texts([one])) for one in ids}
