"""Passes over an answer behind prompts with some of the sources (teacher forcing)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.row_checks import check_scored
from uq_llm_integrations.errors import EmptyPromptError, SourcesTooLongError
from uq_llm_integrations.grounding.grounding_options import Grounding, Source
from uq_llm_integrations.records import Conversation, Floats, Usage

Ids = tuple[int, ...]
Subset = tuple[int, ...]
"""The indices of the sources that stand in a prompt, in their order."""


class Ablations:
    """The log-probabilities of an answer's tokens, by the sources that stand in its prompt.

    All sources, all but each, each alone, and none. The passes are made at the same time, the one
    with all sources first: what the others' prompts begin with is then in the engine's prefix
    cache, up to the source that each leaves out. Equal prompts take one pass.
    """

    def __init__(
        self,
        backend: Backend,
        answer: Ids,
        sources: Sequence[Source],
        question: str,
        grounding: Grounding,
        template: Mapping[str, Any],
    ) -> None:
        self._backend, self._metered = backend, MeteredBackend(backend)
        self._answer, self._question = answer, question
        self._sources, self._grounding, self._template = sources, grounding, template
        self.prompts: dict[Subset, Ids] = {}
        """The token ids of the prompt with each subset of the sources."""
        self._logprobs: dict[Ids, Floats] = {}

    @property
    def every(self) -> Subset:
        """The subset of all sources."""
        return tuple(range(len(self._sources)))

    def without(self, index: int) -> Subset:
        """Return the subset of all sources but one."""
        return tuple(one for one in self.every if one != index)

    @property
    def subsets(self) -> list[Subset]:
        """All subsets that are scored."""
        ones = [(one,) for one in self.every]
        return [self.every, *map(self.without, self.every), *ones, ()]

    @property
    def usage(self) -> Usage:
        """What the passes have cost; `forward_passes` is their number."""
        return self._metered.usage

    @property
    def generation_tokens(self) -> int:
        """The tokens that generating the answer from all sources takes."""
        return len(self.prompts[self.every]) + len(self._answer)

    async def prepare(self) -> None:
        """Write the prompts.

        Raises SourcesTooLongError where the answer does not fit behind all of them, and
        EmptyPromptError where nothing but sources is in the prompt.
        """
        for subset in self.subsets:
            self.prompts[subset] = await self._encoded(subset)
        if not all(self.prompts.values()):
            raise EmptyPromptError
        context = self._backend.capabilities.context_length  # known once an engine has encoded
        length = len(self.prompts[self.every])
        if context is not None and length + len(self._answer) >= context:
            rests = [len(self.prompts[self.without(one)]) for one in self.every]
            sizes = tuple(length - rest for rest in rests)
            raise SourcesTooLongError(length, len(self._answer), context, sizes)

    async def score(self) -> None:
        """Make the passes, one for each distinct prompt."""
        prompts = list(dict.fromkeys(self.prompts.values()))
        found = await together([self._metered.score_all(ids, [self._answer]) for ids in prompts])
        for ids, candidates in zip(prompts, found, strict=True):
            check_scored(candidates)
            self._logprobs[ids] = candidates[0].trace.logprob

    def logprob(self, subset: Subset) -> Floats:
        """Return the [T] log-probabilities behind the prompt with these sources, in nats."""
        return self._logprobs[self.prompts[subset]]

    async def _encoded(self, subset: Subset) -> Ids:
        texts = [self._sources[one].text for one in subset]
        text = self._grounding.written(texts, self._question)
        if not self._grounding.chat_template:
            return await self._backend.encode_data(text)
        turn = {"role": "user", "content": text}
        return await self._backend.encode_chat(Conversation((turn,), template=self._template))
