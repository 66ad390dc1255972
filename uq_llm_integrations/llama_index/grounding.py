"""How far the answers of a query engine rest on the nodes that it retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.schema import MetadataMode, NodeWithScore

from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineError,
    EvidenceError,
    InvalidRequestError,
    described,
)
from uq_llm_integrations.grounding.grounded_answer import GroundedAnswer
from uq_llm_integrations.grounding.grounding_options import Grounding, Source, as_grounding
from uq_llm_integrations.llama_index.events import Collection, report_grounding
from uq_llm_integrations.model import UncertaintyModel

NO_MODEL = "no model of this package gave the answer"


@dataclass(frozen=True)
class NodeGrounding:
    """Grounds answers in nodes, by the model that gave them, and puts that into a collection."""

    how: Grounding

    def ground(
        self, collection: Collection, question: str, answer: str, nodes: Sequence[NodeWithScore]
    ) -> None:
        """Ground one answer, blocking."""
        model = collection.model
        if model is None:
            self._keep(collection, self._unknown(answer, NO_MODEL))
        else:
            self._keep(
                collection, model.backend.run(self._grounded(model, question, answer, nodes))
            )

    async def aground(
        self, collection: Collection, question: str, answer: str, nodes: Sequence[NodeWithScore]
    ) -> None:
        """Ground one answer."""
        model = collection.model
        found = (
            self._unknown(answer, NO_MODEL)
            if model is None
            else await self._grounded(model, question, answer, nodes)
        )
        self._keep(collection, found)

    async def _grounded(
        self,
        model: UncertaintyModel,
        question: str,
        answer: str,
        nodes: Sequence[NodeWithScore],
    ) -> GroundedAnswer:
        """Return the grounding; where it fails, why, since the answer itself is there."""
        try:
            return await model.aground(answer, [*map(_source, nodes)], question, self.how)
        except (EngineError, EvidenceError, InvalidRequestError) as error:
            return self._unknown(answer, str(error))

    def _unknown(self, answer: str, why: str) -> GroundedAnswer:
        return GroundedAnswer.unknown(answer, why, self.how.least_support)

    def _keep(self, collection: Collection, found: GroundedAnswer) -> None:
        collection.grounding = found.to_dict()
        report_grounding(collection.grounding)


def node_grounding(
    given: Grounding | bool, least_support: float | None, *, is_needed: bool
) -> NodeGrounding | None:
    """Return what grounds answers, None where nothing asks for it; ConfigurationError for others.

    A least support asks for it, and so does a condition that needs it.
    """
    if given is False and least_support is None and not is_needed:
        return None
    how = as_grounding(None if given is False else given, least_support=least_support)
    if how.on_not_grounded != "annotate":
        raise ConfigurationError(
            f"on_not_grounded is {described(how.on_not_grounded)}; here on_high_uncertainty says "
            "what becomes of an answer that is not grounded"
        )
    return NodeGrounding(how)


def _source(node: NodeWithScore) -> Source:
    """Return a node as the model was given it."""
    return Source(node.node.get_content(metadata_mode=MetadataMode.LLM), node.node.node_id)
