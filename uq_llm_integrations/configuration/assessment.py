"""The configuration file's section on methods that need more than an answer's log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from uq_llm_integrations.configuration.strategies import Section
from uq_llm_integrations.methods.contrib.luh import LuhHead
from uq_llm_integrations.methods.entailment import Classifier, EmbeddingSimilarity, ServedJudge
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Layer


class ClassifierSection(Section):
    """A classifier of text pairs, from a folder or the hub."""

    classifier: str

    def build(self) -> Classifier:
        """Return the classifier; it is loaded on first use."""
        return Classifier(self.classifier)


class FittedSection(Section):
    """A folder that `save` has written, and the model and layer that it must belong to."""

    folder: Path
    model: str
    layer: int = -1


class LuhSection(Section):
    """A head of the package `luh`, a folder or a hub name, and the model that it was made for."""

    luh: str
    model: str

    def build(self) -> LuhHead:
        """Load the head."""
        return LuhHead.from_pretrained(self.luh, self.model)


class MethodOptionsSection(Section):
    """How methods are served that need more than a trace."""

    samples: int | None = Field(default=None, ge=2)
    temperature: float | None = Field(default=None, gt=0)
    entailment: Literal["judge"] | ClassifierSection = "judge"
    similarity: Literal["judge", "embeddings"] | ClassifierSection = "judge"
    density: FittedSection | None = None
    head: FittedSection | LuhSection | None = None
    layer: Layer | None = None

    def build(self) -> MethodOptions:
        """Return what the section describes."""
        built: dict[str, Any] = self.given("entailment", "similarity", "density", "head")
        built["entailment"] = _judge(self.entailment)
        built["similarity"] = _judge(self.similarity)
        if self.density:
            from uq_llm_integrations.methods.fitted.density import DensityFit

            built["density"] = DensityFit.load(**self.density.given())
        if isinstance(self.head, LuhSection):
            built["head"] = self.head.build()
        elif self.head:
            from uq_llm_integrations.methods.fitted.head import UncertaintyHead

            built["head"] = UncertaintyHead.load(**self.head.given())
        return MethodOptions(**built)


def _judge(choice: Any) -> Any:
    if isinstance(choice, ClassifierSection):
        return choice.build()
    return EmbeddingSimilarity() if choice == "embeddings" else ServedJudge()
