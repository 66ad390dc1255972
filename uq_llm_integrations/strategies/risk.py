"""A calibration as an option: a field that reads its file, and the condition of a risk."""

import math
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from uq_llm_integrations.calibration.calibration_file import (
    Calibration,
    as_calibration,
)
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.quantities import score


def above_risk(calibration: Calibration, risk: float, group: str | None = None) -> Condition:
    """Return the condition of an answer that is too uncertain for a risk.

    All answers to questions of a group without a threshold are. Raises ConfigurationError, which
    says what can be promised at best, where there are no groups and no threshold.
    """
    threshold = calibration.threshold(risk, group)
    if threshold.value is None and calibration.graded.groups is None:
        raise ConfigurationError(f"risk={risk:g}: {threshold.reason}")
    limit = -math.inf if threshold.value is None else threshold.value
    return score("calibrated_score") > limit


def _as_data(calibration: Calibration) -> str | JsonObject:
    return calibration.path or calibration.to_dict()


CalibrationField = Annotated[
    Calibration,
    BeforeValidator(as_calibration),
    PlainSerializer(_as_data),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]
"""A calibration, its plain data or the path of its file, as a field of pydantic."""
