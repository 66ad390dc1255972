"""Embeddings of an answer from its hidden states, and EigenScore, which compares samples by them.

S tokens of prompt and answer, the answer's stop token included; D is the width of the model. The
last token is never fed back while it is generated, so lm-polygraph has no hidden state of it and
it counts for nothing here. Layers count as in `Inspection`: 0 is the embedding, l the output of
the l-th of L blocks, and L what the final norm makes of the last.
"""

from __future__ import annotations

import numpy as np

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Singles


def middle_layer(layers: int) -> int:
    """Return the layer that EigenScore reads of a model with so many blocks."""
    return layers // 2


def mean_embedding(hidden: Singles) -> Singles:
    """Return [D] the mean over prompt and answer of hidden states [S, D], without the last token.

    Of the last layer, L, it is lm-polygraph's `embeddings_decoder`, which its density methods
    read. In a batch lm-polygraph takes the mean over the padding too; this is what it gives for
    one text at a time.
    """
    return np.asarray(_fed(hidden).mean(0, dtype=np.float64), np.float32)


def sample_embedding(hidden: Singles) -> Singles:
    """Return [D] the hidden state of the last token but one, out of [S, D].

    Of the middle layer, L // 2, it is lm-polygraph's `sample_embeddings`, which EigenScore reads.
    In a batch lm-polygraph reads the padding of a sample shorter than others; this is what it
    gives for one prompt at a time. It draws two tokens at least; of one, this is the prompt's last.
    """
    return np.asarray(_fed(hidden)[-1], np.float32)


def eigen_score(embeddings: Singles, alpha: float = 1e-3) -> float:
    """Return EigenScore, https://openreview.net/forum?id=Zj12nzlQbz, of N samples' [N, D].

    The mean log-eigenvalue of their covariance [N, N] plus `alpha` on its diagonal; in nats,
    higher where the samples differ more. Each embedding is centred on the mean of its own D
    numbers, not on the mean of the samples, so the score also grows with their length.
    """
    samples = np.asarray(embeddings, np.float64)
    if samples.ndim != 2 or len(samples) < 2 or not np.isfinite(samples).all():
        raise ConfigurationError(
            f"EigenScore needs finite embeddings [N, D] of two samples or more, not {samples.shape}"
        )
    centred = samples - samples.mean(1, keepdims=True)
    covariance = centred @ centred.T + alpha * np.eye(len(samples))
    eigenvalues = np.linalg.eigvalsh(covariance)
    return float(np.log(np.where(eigenvalues > 0, eigenvalues, 1e-10)).mean())


def _fed(hidden: Singles) -> Singles:
    """Return the hidden states [S - 1, D] of the tokens that were fed to the model."""
    if hidden.ndim != 2 or len(hidden) < 2:
        raise ConfigurationError(
            f"an embedding needs hidden states [S, D] of two tokens or more, not {hidden.shape}"
        )
    return hidden[:-1]
