"""How far an answer's embedding lies from those of texts the model answered in training.

The embeddings [N, D] are `mean_embedding`s of one layer, one for each text; lm-polygraph takes the
last. All distances are higher where the model is less certain, and have no unit of their own:
compare those of one fit only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.fitted.storage import (
    Arrays,
    check_embedding,
    check_training,
    load_fit,
    optional_module,
    save_fit,
)
from uq_llm_integrations.methods.polygraph import load_estimator
from uq_llm_integrations.records import Floats, Layer, Singles

COMPONENTS = 100
"""Dimensions that RDE reduces embeddings to; it needs more texts than that."""

_KIND = "density"


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """Centre and inverse covariance of embeddings."""

    centroid: Singles
    precision: Singles

    @classmethod
    def fit(cls, embeddings: Singles) -> Self:
        """Fit as lm-polygraph's estimator does, which adds to the diagonal where it has to."""
        estimator: Any = load_estimator("mahalanobis_distance:MahalanobisDistanceSeq")
        estimator({"train_embeddings_decoder": embeddings, "embeddings_decoder": embeddings[:1]})
        precision = np.ascontiguousarray(estimator.sigma_inv.cpu().numpy())
        return cls(estimator.centroid.cpu().numpy(), precision)

    def distance(self, embedding: Singles) -> float:
        difference = (embedding - self.centroid).astype(np.float64)
        squared = float(difference @ self.precision.astype(np.float64) @ difference)
        if squared < 0.0:
            raise ConfigurationError(
                "the covariance of the training embeddings is too close to singular for a "
                f"distance; fit on more texts, best on several times {len(self.centroid)}"
            )
        return float(np.sqrt(squared))


@dataclass(frozen=True, eq=False)
class _RobustGaussian:
    """Kernel PCA of embeddings, and centre and inverse covariance of most of what it gives."""

    embeddings: Singles
    kernel_rows: Floats
    kernel_all: Floats
    projection: Floats
    location: Floats
    precision: Floats

    @classmethod
    def fit(cls, embeddings: Singles, seed: int) -> Self:
        decomposition = optional_module("sklearn.decomposition")
        pca = decomposition.KernelPCA(n_components=COMPONENTS, kernel="rbf", random_state=seed)
        scatter = _robust_covariance(pca.fit_transform(embeddings), seed)
        # scikit-learn leaves out components without variance in this way too.
        roots = np.sqrt(np.where(pca.eigenvalues_ > 0, pca.eigenvalues_, np.inf))
        centerer = pca._centerer
        return cls(
            embeddings,
            *(
                np.asarray(part, np.float64, order="C")
                for part in (
                    centerer.K_fit_rows_,
                    centerer.K_fit_all_,
                    pca.eigenvectors_ / roots,
                    scatter.location_,
                    scatter.precision_,
                )
            ),
        )

    def distance(self, embedding: Singles) -> float:
        differences = (self.embeddings - embedding).astype(np.float64)
        kernel = np.exp(-(differences**2).mean(1))
        centred = kernel - self.kernel_rows - kernel.mean() + self.kernel_all
        difference = centred @ self.projection - self.location
        return float(difference @ self.precision @ difference)


@dataclass(frozen=True, eq=False)
class _Ranks:
    """What perplexity and distance were among the training texts, for their ranks there.

    `perplexities` [N] are mean negative log-probabilities. `distances` [M] are those of held-out
    texts, since a fit is too near to its own.
    """

    perplexities: Floats
    distances: Floats

    @classmethod
    def fit(cls, embeddings: Singles, perplexities: ArrayLike) -> Self | None:
        """Hold out the texts that lm-polygraph does; None where the others make no distance."""
        split = optional_module("sklearn.model_selection").train_test_split
        kept, held_out = split(embeddings, test_size=0.3, random_state=42)
        gaussian = _Gaussian.fit(kept)
        try:
            distances = np.array([gaussian.distance(one) for one in held_out])
        except ConfigurationError:
            return None
        known = np.asarray(perplexities, np.float64)
        return cls(known[np.isfinite(known)], distances)

    def mean(self, perplexity: float, distance: float) -> float:
        shares = (perplexity >= self.perplexities).mean(), (distance >= self.distances).mean()
        return float(np.mean(shares))


@dataclass(frozen=True, eq=False)
class DensityFit:
    """Densities of the embeddings of training texts, of one layer of one model.

    Follows lm-polygraph's estimators, which fit in single precision. With no more texts than
    dimensions the covariance is singular; lm-polygraph then adds the smallest power of ten to its
    diagonal that makes the eigenvalues come out positive, and distances tell above all how much
    of an embedding lies where no training text does.
    """

    model: str
    layer: Layer
    _gaussian: _Gaussian
    _background: _Gaussian | None = None
    _robust: _RobustGaussian | None = None
    _ranks: _Ranks | None = None

    @property
    def has_ranks(self) -> bool:
        """Whether PPLMD can be told."""
        return self._ranks is not None

    @property
    def has_background(self) -> bool:
        """Whether the relative distance can be told."""
        return self._background is not None

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        background: ArrayLike | None = None,
        *,
        model: str,
        layer: Layer,
        perplexities: ArrayLike | None = None,
        robust: bool = True,
        seed: int = 42,
    ) -> Self:
        """Fit on embeddings [N, D] of training texts.

        `background` [M, D] are embeddings of texts of all kinds, for the relative distance, and
        `perplexities` [N] mean negative log-probabilities of the training texts, for PPLMD. RDE
        needs more than 100 texts; fitting it takes most of the time, and is left out where it is
        not wanted (`robust=False`). `seed` is lm-polygraph's own.
        """
        texts = check_training(embeddings)
        other = None if background is None else check_training(background)
        if other is not None and other.shape[1] != texts.shape[1]:
            raise ConfigurationError(
                f"the background's embeddings have {other.shape[1]} numbers, "
                f"the others {texts.shape[1]}"
            )
        return cls(
            model,
            layer,
            _Gaussian.fit(texts),
            None if other is None else _Gaussian.fit(other),
            _RobustGaussian.fit(texts, seed) if robust and len(texts) > COMPONENTS else None,
            None if perplexities is None else _Ranks.fit(texts, perplexities),
        )

    def save(self, folder: Path | str) -> None:
        """Write density.safetensors and density.json into the folder."""
        parts = {
            "gaussian": self._gaussian,
            "background": self._background,
            "robust": self._robust,
            "ranks": self._ranks,
        }
        arrays = {
            f"{part}.{field.name}": getattr(fitted, field.name)
            for part, fitted in parts.items()
            if fitted is not None
            for field in fields(fitted)
        }
        save_fit(folder, _KIND, arrays, model=self.model, layer=self.layer)

    @classmethod
    def load(cls, folder: Path | str, *, model: str, layer: Layer) -> Self:
        """Read what `save` wrote; refuse a fit of another model, layer or format."""
        arrays = load_fit(folder, _KIND, model=model, layer=layer)
        gaussian = _part(arrays, "gaussian", _Gaussian)
        assert gaussian is not None
        return cls(
            model,
            layer,
            gaussian,
            _part(arrays, "background", _Gaussian),
            _part(arrays, "robust", _RobustGaussian),
            _part(arrays, "ranks", _Ranks),
        )

    def mahalanobis(self, embedding: ArrayLike) -> float:
        """Return the Mahalanobis distance of an embedding [D], https://arxiv.org/abs/1807.03888.

        lm-polygraph's MahalanobisDistanceSeq, which takes the root of the paper's square.
        """
        return self._gaussian.distance(self._check(embedding))

    def relative_mahalanobis(self, embedding: ArrayLike) -> float:
        """Return the distance less that from the background, https://arxiv.org/abs/2209.15558.

        lm-polygraph's RelativeMahalanobisDistanceSeq: a difference of roots, the paper's is one of
        squares. Negative where the embedding is nearer to the training texts.
        """
        if self._background is None:
            raise ConfigurationError(
                "the relative distance needs a fit with background embeddings; this has none"
            )
        embedding = self._check(embedding)
        return self._gaussian.distance(embedding) - self._background.distance(embedding)

    def rde(self, embedding: ArrayLike) -> float:
        """Return robust density estimation, https://aclanthology.org/2022.findings-acl.289.

        lm-polygraph's RDESeq: the squared distance among 100 components of a kernel PCA, with
        the covariance of least determinant.
        """
        if self._robust is None:
            raise ConfigurationError(
                f"RDE needs a fit on more than {COMPONENTS} texts, with `robust=True`"
            )
        return self._robust.distance(self._check(embedding))

    def ppl_md(self, embedding: ArrayLike, perplexity: float) -> float:
        """Return PPLMD, https://arxiv.org/abs/2209.15558: the mean of two ranks, 0 to 1.

        lm-polygraph's PPLMDSeq: the shares of the training texts whose mean negative
        log-probability is not above `perplexity`, and whose distance is not above this one's.
        """
        if self._ranks is None:
            raise ConfigurationError("PPLMD needs a fit with the training texts' `perplexities`")
        return self._ranks.mean(perplexity, self.mahalanobis(embedding))

    def _check(self, embedding: ArrayLike) -> Singles:
        return check_embedding(embedding, len(self._gaussian.centroid))


_Part = TypeVar("_Part", _Gaussian, _RobustGaussian, _Ranks)


def _part(arrays: Arrays, part: str, kind: type[_Part]) -> _Part | None:
    own: dict[str, NDArray[Any]] = {
        name.removeprefix(f"{part}."): array
        for name, array in arrays.items()
        if name.startswith(f"{part}.")
    }
    return kind(**own) if own else None


def _robust_covariance(components: Floats, seed: int) -> Any:
    """Return the covariance of the least determinant, of as many texts as it takes to exist."""
    covariance = optional_module("sklearn.covariance")
    for fraction in (None, 0.9, 1.0):
        try:
            return covariance.MinCovDet(random_state=seed, support_fraction=fraction).fit(
                components
            )
        except ValueError as error:
            last = error
    raise ConfigurationError(f"RDE finds no covariance of these embeddings: {last}") from last
