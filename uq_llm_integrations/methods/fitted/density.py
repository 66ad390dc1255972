"""How far an answer's embedding lies from those of texts the model answered in training.

The embeddings [N, D] are `mean_embedding`s of one layer, one for each text; lm-polygraph takes the
last. All distances are higher where the model is less certain, and have no unit of their own:
compare those of one fit only.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.fitted.embeddings import check_embedding, check_training
from uq_llm_integrations.methods.fitted.storage import Arrays, load_fit, optional_module, save_fit
from uq_llm_integrations.records import Floats, Layer, Singles

COMPONENTS = 100
"""Dimensions that RDE reduces embeddings to; it needs more texts than that."""

_KIND = "density"
_STORED = {"mean_nlls": "perplexities"}
"""Field -> its name in the files, where that is another."""


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """Centre and inverse covariance of embeddings."""

    centroid: Singles
    precision: Singles

    @classmethod
    def fit(cls, embeddings: Singles) -> Self:
        """Fit as lm-polygraph's MahalanobisDistanceSeq does, operation by operation.

        In torch, since with fewer texts than dimensions rounding decides which power of ten is
        the smallest that makes the eigenvalues come out positive.
        """
        torch = optional_module("torch")
        texts = torch.from_numpy(embeddings).to("cuda" if torch.cuda.is_available() else "cpu")
        covariance = torch.nan_to_num(torch.cov(texts.T), nan=0.0, posinf=0.0, neginf=0.0)
        identity = torch.eye(len(covariance), device=texts.device)
        for exponent in range(-15, 0):
            padded = covariance + 10**exponent * identity
            if (torch.linalg.eigh(padded).eigenvalues >= 0).all():
                break
        precision = torch.inverse(padded.double()).float().cpu().numpy()
        return cls(texts.mean(0).cpu().numpy(), np.ascontiguousarray(precision))

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
        location, precision = _robust_covariance(pca.fit_transform(embeddings), seed)
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
                    location,
                    precision,
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

    `mean_nlls` [N] are mean negative log-probabilities, whose ranks are those of the perplexities.
    `distances` [M] are those of held-out texts, since a fit is too near to its own.
    """

    mean_nlls: Floats
    distances: Floats

    @classmethod
    def fit(cls, embeddings: Singles, mean_nlls: ArrayLike) -> Self | None:
        """Hold out the texts that lm-polygraph does; None where the others make no distance."""
        split = optional_module("sklearn.model_selection").train_test_split
        kept, held_out = split(embeddings, test_size=0.3, random_state=42)
        gaussian = _Gaussian.fit(kept)
        try:
            distances = np.array([gaussian.distance(one) for one in held_out])
        except ConfigurationError:
            return None
        known = np.asarray(mean_nlls, np.float64)
        return cls(known[np.isfinite(known)], distances)

    def mean(self, mean_nll: float, distance: float) -> float:
        shares = (mean_nll >= self.mean_nlls).mean(), (distance >= self.distances).mean()
        return float(np.mean(shares))


@dataclass(frozen=True, eq=False)
class DensityFit:
    """Densities of the embeddings of training texts, of one layer of one model.

    Follows lm-polygraph's estimators, which fit in single precision. With no more texts than
    dimensions the covariance is singular; lm-polygraph then adds the smallest power of ten to its
    diagonal that makes the eigenvalues come out positive, and distances show above all how much
    of an embedding lies where no training text does.

    Example:
        density = DensityFit.fit(embeddings, model="smollm2", layer=-1)
        density.mahalanobis(embedding)
        density.save("folder")
    """

    model: str
    layer: Layer
    _gaussian: _Gaussian
    _background: _Gaussian | None = None
    _robust: _RobustGaussian | None = None
    _ranks: _Ranks | None = None

    @property
    def has_ranks(self) -> bool:
        """Whether PPLMD is known."""
        return self._ranks is not None

    @property
    def has_background(self) -> bool:
        """Whether the relative distance is known."""
        return self._background is not None

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        background: ArrayLike | None = None,
        *,
        model: str,
        layer: Layer,
        mean_nlls: ArrayLike | None = None,
        robust: bool = True,
        seed: int = 42,
    ) -> Self:
        """Fit on embeddings [N, D] of training texts.

        `background` [M, D] are embeddings of texts of all kinds, for the relative distance, and
        `mean_nlls` [N] mean negative log-probabilities of the training texts, for PPLMD. RDE needs
        more than 100 texts; fitting it takes most of the time, and is left out with
        `robust=False`. `seed` is lm-polygraph's own.
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
            None if mean_nlls is None else _Ranks.fit(texts, mean_nlls),
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
            f"{part}.{_STORED.get(field.name, field.name)}": getattr(fitted, field.name)
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

    def ppl_md(self, embedding: ArrayLike, mean_nll: float) -> float:
        """Return PPLMD, https://arxiv.org/abs/2209.15558: the mean of two ranks, 0 to 1.

        lm-polygraph's PPLMDSeq: the shares of the training texts whose mean negative
        log-probability is not above `mean_nll`, and whose distance is not above this one's.
        """
        if self._ranks is None:
            raise ConfigurationError("PPLMD needs a fit with the training texts' `mean_nlls`")
        return self._ranks.mean(mean_nll, self.mahalanobis(embedding))

    def _check(self, embedding: ArrayLike) -> Singles:
        return check_embedding(embedding, len(self._gaussian.centroid))


_Part = TypeVar("_Part", _Gaussian, _RobustGaussian, _Ranks)


def _part(arrays: Arrays, part: str, kind: type[_Part]) -> _Part | None:
    stored = {field.name: f"{part}.{_STORED.get(field.name, field.name)}" for field in fields(kind)}
    if not arrays.keys() & set(stored.values()):
        return None
    return kind(**{name: arrays[key] for name, key in stored.items()})


def _robust_covariance(components: Floats, seed: int) -> tuple[Floats, Floats]:
    """Return centre and inverse of the covariance of least determinant.

    Of as many texts as it takes for one to exist.
    """
    covariance = optional_module("sklearn.covariance")
    for fraction in (None, 0.9, 1.0):
        robust = covariance.MinCovDet(random_state=seed, support_fraction=fraction)
        try:
            robust.fit(components)
        except ValueError as error:
            last = error
        else:
            return robust.location_, robust.precision_
    raise ConfigurationError(f"RDE finds no covariance of these embeddings: {last}") from last
