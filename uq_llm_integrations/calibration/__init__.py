"""What a score is worth, from graded answers: metrics, confidence, thresholds with guarantees.

It knows arrays and `Score` records, and no backend, method or framework. `scipy` and
`scikit-learn`, which thresholds and confidence take, come with the extra `calibration`.
"""

from uq_llm_integrations.calibration.bootstrap import bootstrap, bootstrap_difference
from uq_llm_integrations.calibration.calibration_file import (
    Calibration,
    GradedAnswers,
    calibration_schema,
    fit_calibration,
)
from uq_llm_integrations.calibration.confidence import (
    IsotonicScaling,
    PlattScaling,
    fit_confidence,
    scaling_from_dict,
)
from uq_llm_integrations.calibration.drift import DriftState, DriftWatch, Watched
from uq_llm_integrations.calibration.guarantees import GroupThresholds, Guarantee, Threshold
from uq_llm_integrations.calibration.learn_then_test import answers_needed
from uq_llm_integrations.calibration.measured import Interval, Metric
from uq_llm_integrations.calibration.metrics import (
    aurc,
    auroc,
    eaurc,
    prr,
    risk_coverage,
    selective_accuracy,
)
from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.calibration.reliability import ReliabilityBin, brier, ece, reliability
from uq_llm_integrations.calibration.stacking import Stack, StackedMethod, StackFit, fit_stack
from uq_llm_integrations.calibration.thresholds import fit_group_thresholds, fit_threshold

__all__ = [
    "Calibration",
    "DriftState",
    "DriftWatch",
    "GradedAnswers",
    "GroupThresholds",
    "Guarantee",
    "Interval",
    "IsotonicScaling",
    "Metric",
    "Origin",
    "PlattScaling",
    "ReliabilityBin",
    "Stack",
    "StackFit",
    "StackedMethod",
    "Threshold",
    "Watched",
    "answers_needed",
    "aurc",
    "auroc",
    "bootstrap",
    "bootstrap_difference",
    "brier",
    "calibration_schema",
    "eaurc",
    "ece",
    "fit_calibration",
    "fit_confidence",
    "fit_group_thresholds",
    "fit_stack",
    "fit_threshold",
    "prr",
    "reliability",
    "risk_coverage",
    "scaling_from_dict",
    "selective_accuracy",
]
