"""A supervised head: from a model's hidden states to the probability that its answer is wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.fitted.embeddings import (
    check_embedding,
    check_training,
    mean_embedding,
)
from uq_llm_integrations.methods.fitted.storage import load_fit, optional_module, save_fit
from uq_llm_integrations.records import Activations, Candidate, Floats, Inspection, Layer

_KIND = "head"


@dataclass(frozen=True, eq=False)
class UncertaintyHead:
    """Logistic regression on embeddings of one layer of one model, fitted on graded answers.

    The embeddings are standardised, and where they have more numbers than half as many as there
    are texts, reduced to a quarter as many principal components as texts. Since all of that is
    linear, what is kept is one weight [D] for each number, and a bias.

    Example:
        head = UncertaintyHead.fit(embeddings, is_wrong, model="smollm2", layer=15)
        head.score(embedding)
        head.save("folder")
    """

    model: str
    layer: Layer
    weight: Floats
    bias: float

    @classmethod
    def fit(cls, embeddings: ArrayLike, is_wrong: ArrayLike, *, model: str, layer: Layer) -> Self:
        """Fit on embeddings [N, D] of answers and whether each was wrong [N].

        Embeddings of any kind will do, as long as those to be scored are of the same:
        `mean_embedding` of a middle layer is a good choice.
        """
        texts = check_training(embeddings).astype(np.float64)
        wrong = _check_labels(is_wrong, len(texts))
        mean, deviation = texts.mean(0), texts.std(0)
        scale = np.where(deviation > 0, deviation, 1.0)
        standardised = (texts - mean) / scale
        axes = _principal_axes(standardised)
        linear_model = optional_module("sklearn.linear_model")
        regression = linear_model.LogisticRegression(max_iter=1000).fit(standardised @ axes, wrong)
        weight = axes @ regression.coef_[0] / scale
        return cls(model, layer, weight, float(regression.intercept_[0] - weight @ mean))

    def score(self, embedding: ArrayLike) -> float:
        """Return the probability from 0 to 1 that an answer with this embedding [D] is wrong.

        It holds for questions like those of the fit, and in the same mixture of right and wrong.
        """
        logit = check_embedding(embedding, len(self.weight)) @ self.weight + self.bias
        return float(0.5 + 0.5 * np.tanh(logit / 2))

    @property
    def inspection(self) -> Inspection:
        """The hidden states of its layer."""
        return Inspection((self.layer,))

    @property
    def top_logprobs(self) -> int:
        """None are read."""
        return 0

    def doubt(self, candidate: Candidate, seen: Activations) -> float:
        """Return the score of the mean hidden state of prompt and answer."""
        return self.score(mean_embedding(seen.hidden[self.layer]))

    def save(self, folder: Path | str) -> None:
        """Write head.safetensors and head.json into the folder."""
        arrays = {"weight": self.weight, "bias": np.array([self.bias])}
        save_fit(folder, _KIND, arrays, model=self.model, layer=self.layer)

    @classmethod
    def load(cls, folder: Path | str, *, model: str, layer: Layer) -> Self:
        """Read what `save` wrote; refuse a head of another model, layer or format."""
        arrays = load_fit(folder, _KIND, model=model, layer=layer)
        return cls(model, layer, arrays["weight"], float(arrays["bias"][0]))


def _check_labels(is_wrong: ArrayLike, texts: int) -> NDArray[np.bool_]:
    labels = np.asarray(is_wrong)
    if labels.shape != (texts,) or labels.dtype != np.bool_:
        raise ConfigurationError(
            f"there must be one True or False for each of {texts} answers, "
            f"not {labels.dtype} {labels.shape}"
        )
    if labels.all() or not labels.any():
        kind = "wrong" if labels.all() else "right"
        raise ConfigurationError(f"all answers are {kind}; a head needs wrong and right ones")
    return labels


def _principal_axes(standardised: Floats) -> Floats:
    """Return [D, C] the axes of most variance, or all D as they are where they are few enough."""
    texts, width = standardised.shape
    if width <= texts / 2:
        return np.eye(width)
    _, _, axes = np.linalg.svd(standardised, full_matrices=False)
    return np.asarray(axes[: texts // 4].T)
