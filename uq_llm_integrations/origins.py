"""Where an answer comes from, and whether a calibration was made with the same."""

from __future__ import annotations

import warnings

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.errors import CalibrationMismatchError
from uq_llm_integrations.settings import Settings
from uq_llm_integrations.version import __version__


async def origin_of(backend: Backend, settings: Settings) -> Origin:
    """Return what the answers of a backend with these settings, and their scores, come from."""
    facts = await backend.facts()
    return Origin(
        facts.model,
        __version__,
        facts.weights,
        facts.tokenizer,
        facts.chat_template,
        settings.origin(),
    )


async def check_origin(backend: Backend, settings: Settings) -> None:
    """Compare what a calibration was made with to what it is used with.

    Raises CalibrationMismatchError, or warns, as `calibration_mismatch` says.
    """
    if settings.calibration is None:
        return
    origin = await origin_of(backend, settings)
    differences = list(origin.differences(settings.calibration.origin))
    if not differences:
        return
    text = (
        "the calibration was made with something else, so that its confidence and its guarantee "
        f"mean nothing here: {'; '.join(differences)}"
    )
    if settings.calibration_mismatch == "raise":
        raise CalibrationMismatchError(f"{text}. Calibrate again, or set calibration_mismatch=warn")
    warnings.warn(text, stacklevel=2)
