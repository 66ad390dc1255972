"""Methods that are made of other methods' scores by a calibration, see `calibration`."""

from collections.abc import Mapping

from uq_llm_integrations.backends.capabilities import Capabilities
from uq_llm_integrations.calibration.calibration_file import Calibration
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import combined_method
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Score


def needs_calibration(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require a calibration."""
    if options.calibration is not None:
        return None
    return "a calibration: give the model calibration='file.json'"


@combined_method(
    "CalibratedScore",
    alias="calibrated_score",
    category="calibrated",
    summary="The score that the calibration's thresholds are of: one method's, or the probability "
    "by a stack of several that the answer is wrong.",
    reference="https://doi.org/10.1016/S0893-6080(05)80023-1",
    cost="what the calibrated methods cost",
    requirements=(needs_calibration,),
)
def calibrated_score(scores: Mapping[str, Score], options: MethodOptions) -> float:
    """Return the calibrated score."""
    calibration = options.calibration
    assert calibration is not None
    return _known(calibration.value_of(scores), calibration, scores)


@combined_method(
    "ErrorProbability",
    alias="error_probability",
    category="calibrated",
    summary="The probability that the answer is wrong, by the calibration: 1 - confidence.",
    range=(0.0, 1.0),
    reference="https://doi.org/10.1145/775047.775151",
    cost="what the calibrated methods cost",
    requirements=(needs_calibration,),
)
def error_probability(scores: Mapping[str, Score], options: MethodOptions) -> float:
    """Return 1 - confidence."""
    calibration = options.calibration
    assert calibration is not None
    return 1 - _known(calibration.confidence_of(scores), calibration, scores)


def _known(value: float | None, calibration: Calibration, scores: Mapping[str, Score]) -> float:
    """Return the value, or raise why it is unknown."""
    if value is None:
        unknown = (
            f"{name}: {scores[name].reason}"
            for name in calibration.methods
            if scores[name].value is None
        )
        raise EvidenceError("the calibrated score is unknown; " + "; ".join(unknown))
    return value


METHODS = (calibrated_score, error_probability)
