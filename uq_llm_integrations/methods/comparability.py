"""What moves a method's value beside the model's doubt: values are compared where it is the same.

A threshold that was found with five samples at temperature 1 says nothing of ten, or of 0.7.
"""

from collections.abc import Mapping
from typing import Literal

from uq_llm_integrations.methods.base import Method

Circumstance = Literal["samples", "temperature", "length"]
"""The number of samples, the temperature that they are drawn at, and the answer's length."""

_ALL: tuple[Circumstance, ...] = ("samples", "temperature", "length")
_SAMPLED: tuple[Circumstance, ...] = ("samples", "temperature")
_DRAWN: tuple[Circumstance, ...] = ("temperature",)
_SUMMED: tuple[Circumstance, ...] = ("length",)

VARIES_WITH: Mapping[str, tuple[Circumstance, ...]] = {
    "MaximumSequenceProbability": _SUMMED,
    "length_adjusted_nll": _SUMMED,
    "span_sequence_probability": _SUMMED,
    "MaximumTokenEntropy": _SUMMED,
    "ClaimConditionedProbability": _SUMMED,
    "AttentionScore": _SUMMED,
    "AttentionScoreClaim": _SUMMED,
    "MaximumClaimProbability": _SUMMED,
    "MaxTokenEntropyClaim": _SUMMED,
    "PointwiseMutualInformationClaim": _SUMMED,
    "ClaimConditionedProbabilityClaim": _SUMMED,
    "TokenSARClaim": _SUMMED,
    "TokenSAR": (),
    "LexicalSimilarity": _DRAWN,
    "LUQ": _DRAWN,
    "CocoaPPL": _DRAWN,
    "CocoaMTE": _DRAWN,
    "MonteCarloNormalizedSequenceEntropy": _DRAWN,
    "MonteCarloSequenceEntropy": ("temperature", "length"),
    "RaoBlackwellEntropy": ("temperature", "length"),
    "CocoaMSP": ("temperature", "length"),
    "SemanticEntropy": _ALL,
    "SemanticEntropyPolygraph": _ALL,
    "SentenceSAR": _ALL,
    "EigenScore": _ALL,
    "PTrueSampling": _SAMPLED,
}
"""Name -> what its value varies with, where that is not what its category says."""


def varies_with(method: Method) -> tuple[Circumstance, ...]:
    """Return what the method's values must have in common to be compared.

    Example:
        >>> from uq_llm_integrations.methods.registry import find_method
        >>> varies_with(find_method("num_sem_sets"))
        ('samples', 'temperature')
        >>> varies_with(find_method("entropy"))
        ()
    """
    return VARIES_WITH.get(method.name, _SAMPLED if method.category == "sampling" else ())
