"""Embeddings of an answer from its hidden states, and the checks of those that a fit rests on.

S tokens of prompt and answer, the answer's stop token included; D is the width of the model. The
last token is never fed back while it is generated, so lm-polygraph has no hidden state of it and
it counts for nothing here.
"""

import numpy as np
from numpy.typing import ArrayLike

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Singles

MINIMUM_TEXTS = 20
"""Fewer texts than this make no fit."""


def mean_embedding(hidden: Singles) -> Singles:
    """Return [D] the mean over prompt and answer of hidden states [S, D], without the last token.

    Of the last layer it is lm-polygraph's `embeddings_decoder`, which its density methods read. In
    a batch lm-polygraph takes the mean over the padding too; this is what it gives for one text at
    a time.

    Example:
        >>> mean_embedding(np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], np.float32))
        array([2., 3.], dtype=float32)
    """
    return np.asarray(_fed(hidden).mean(0, dtype=np.float64), np.float32)


def sample_embedding(hidden: Singles) -> Singles:
    """Return [D] the hidden state of the last token but one, out of [S, D].

    Of the middle layer it is lm-polygraph's `sample_embeddings`, which EigenScore reads. In a batch
    lm-polygraph reads the padding of a sample shorter than others; this is what it gives for one
    prompt at a time. It generates two tokens at least; of one, this is the prompt's last.
    """
    return np.asarray(_fed(hidden)[-1], np.float32)


def check_training(embeddings: ArrayLike) -> Singles:
    """Return embeddings [N, D] in single precision; refuse what no fit can rest on."""
    checked = np.asarray(embeddings, np.float32)
    if checked.ndim != 2 or len(checked) < MINIMUM_TEXTS:
        raise ConfigurationError(
            f"a fit needs embeddings [N, D] of {MINIMUM_TEXTS} texts or more, not {checked.shape}"
        )
    _check_finite(checked)
    if not np.ptp(checked, 0).any():
        raise ConfigurationError("a fit needs embeddings that differ; these are all the same")
    return checked


def check_embedding(embedding: ArrayLike, width: int) -> Singles:
    """Return one embedding [D] in single precision; refuse another width than the fit's."""
    checked = np.asarray(embedding, np.float32)
    if checked.shape != (width,):
        raise ConfigurationError(
            f"this fit is of embeddings of {width} numbers; it cannot score one of {checked.shape}"
        )
    _check_finite(checked)
    return checked


def _fed(hidden: Singles) -> Singles:
    """Return the hidden states [S - 1, D] of the tokens that were fed to the model."""
    if hidden.ndim != 2 or len(hidden) < 2:
        raise ConfigurationError(
            f"an embedding needs hidden states [S, D] of two tokens or more, not {hidden.shape}"
        )
    return hidden[:-1]


def _check_finite(embeddings: Singles) -> None:
    if not np.isfinite(embeddings).all():
        raise ConfigurationError("embeddings must be finite; there are NaN or infinite numbers")
