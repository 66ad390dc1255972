"""Whether answers still come from where the graded ones came from, watched while they are given.

Each new score is ranked among the calibration's and all that came since. As long as all come from
the same source, these ranks are independent and uniform (Vovk, Gammerman and Shafer 2005), and a
bet against that wins no money on average. Where the capital of a bettor reaches 1 / alpha, the
ground of the guarantee looks gone: by Ville's inequality that happens with probability alpha at
most, however long one watches, where nothing has changed. The bettor is the Simple Jumper (Vovk,
Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, https://arxiv.org/abs/2102.10439).
"""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from uq_llm_integrations.calibration.calibration_file import Calibration
from uq_llm_integrations.calibration.graded import as_correct, as_count, as_scores, as_share
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Result, Score
from uq_llm_integrations.telemetry.instruments import DRIFT_ALARMS, DRIFT_EVIDENCE, record

logger = logging.getLogger(__name__)

_BETS = (-1.0, 0.0, 1.0)
"""That ranks are low, that they are even, and that they are high."""

_JUMP = 0.01
"""The share of the capital that changes from one bet to another before each rank."""


@dataclass(frozen=True)
class Watched(PlainRecord):
    """What is kept of an answer: no text."""

    score: float | None
    """The calibrated score; None where it was unknown."""
    decision: str
    is_uncertain: bool
    group: str | None = None


@dataclass(frozen=True)
class DriftState(PlainRecord):
    """What the watch has seen so far."""

    answers: int
    """How many it was shown, ..."""
    unknown: int
    """... how many of these had no known score, ..."""
    uncertain: int
    """... and how many were too uncertain."""
    evidence: float
    """The capital: 1 is none, 1 / alpha is an alarm."""
    alarmed_at: int | None
    """After how many answers it sounded the alarm, None where it has not."""


class DriftWatch:
    """Watches the scores of answers against those of a calibration.

    `alpha` is the probability of a false alarm, over all the time that it watches. `on_alarm` is
    called once, with the state. The last `keep` answers are kept, without their texts; ranks are
    taken among up to `most` scores, after which the test begins anew with half of what is left of
    alpha. It may be shown answers from any thread.

    Example:
        watch = DriftWatch(Calibration.load("calibration.json"), on_alarm=tell_somebody)
        watch.show(model.generate("Capital of France?"))
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        alpha: float = 0.01,
        on_alarm: Callable[[DriftState], None] | None = None,
        keep: int = 1000,
        most: int = 100_000,
        seed: int = 0,
    ) -> None:
        self.calibration, self.alpha = calibration, as_share(alpha, "alpha")
        self._on_alarm = on_alarm
        self._base = sorted(map(_ranked, calibration.graded.scores))
        self._most = as_count(most, "most", len(self._base) + 1)
        self.recent: deque[Watched] = deque(maxlen=as_count(keep, "keep"))
        """What is known of the last answers, the oldest first."""
        self._graded: deque[tuple[float | None, bool, str | None]] = deque(maxlen=self._most)
        self._random, self._lock = Random(seed), threading.Lock()  # no secret
        self._counts: Counter[str] = Counter()
        self._alarmed_at: int | None = None
        self._begin(self.alpha / 2)

    def _begin(self, share: float) -> None:
        """Begin the test with a share of alpha."""
        self._scores, self._share = list(self._base), share
        self._capital = dict.fromkeys(_BETS, 1 / len(_BETS))

    @property
    def state(self) -> DriftState:
        """What it has seen so far."""
        with self._lock:
            return self._state()

    def _state(self) -> DriftState:
        counts = self._counts
        return DriftState(
            counts["answers"],
            counts["unknown"],
            counts["uncertain"],
            sum(self._capital.values()) * self._share / self.alpha,
            self._alarmed_at,
        )

    def show(self, answer: Result | Mapping[str, Any], group: str | None = None) -> None:
        """Watch an answer: a result, or the `uncertainty` of a framework's metadata."""
        score = self._score(answer)
        if isinstance(answer, Result):
            given = answer.decision
            self.add(score, decision=given.action, is_uncertain=given.is_uncertain, group=group)
        else:
            action, is_uncertain = str(answer.get("decision")), bool(answer.get("uncertain"))
            self.add(score, decision=action, is_uncertain=is_uncertain, group=group)

    def _score(self, answer: Result | Mapping[str, Any]) -> float | None:
        scores = answer.scores[0] if isinstance(answer, Result) else answer.get("scores", {})
        missing = [name for name in self.calibration.methods if name not in scores]
        if missing:
            raise ConfigurationError(
                f"the answer has no scores of {', '.join(missing)}; give the model the calibration"
            )
        return self.calibration.value_of(scores)

    def feedback(
        self, answer: Result | Mapping[str, Any], correct: bool, group: str | None = None
    ) -> None:
        """Note whether an answer was right, for `recalibrated`."""
        value = self._score(answer)
        with self._lock:
            self._graded.append((value, as_correct([correct], 1)[0] == 1, group))

    def recalibrated(self) -> Calibration:
        """Return the calibration that the last graded answers give, on the terms of the old one.

        Those that the old one was made of have no part in it. Raises ConfigurationError where the
        answers are not both right and wrong.
        """
        with self._lock:
            scores, correct, groups = zip(*self._graded, strict=True) if self._graded else ((),) * 3
        has_groups = self.calibration.graded.groups is not None
        return self.calibration.refitted(scores, correct, groups if has_groups else None)

    def add(
        self,
        score: float | Score | None,
        *,
        decision: str = "accepted",
        is_uncertain: bool = False,
        group: str | None = None,
    ) -> None:
        """Watch an answer by its calibrated score, None where that is unknown."""
        (value,) = as_scores([score], "score").tolist()
        known = None if math.isnan(value) else value
        with self._lock:
            self.recent.append(Watched(known, decision, is_uncertain, group))
            self._counts.update(answers=1, unknown=known is None, uncertain=is_uncertain)
            alarm = self._bet(_ranked(known))
            record(DRIFT_EVIDENCE, self._state().evidence)
        if alarm:
            record(DRIFT_ALARMS, 1)
            logger.warning(
                "the scores no longer come from where the calibration's came from, after %d "
                "answers (false alarms: %g); the guarantee may not hold",
                alarm.answers,
                self.alpha,
                extra={"drift_answers": alarm.answers, "drift_evidence": alarm.evidence},
            )
            if self._on_alarm:
                self._on_alarm(alarm)

    def _bet(self, value: float) -> DriftState | None:
        """Rank a score, and return the state where that is the alarm."""
        below, upto = bisect_left(self._scores, value), bisect_right(self._scores, value)
        ties = upto - below + 1
        rank = (below + ties * self._random.random()) / (len(self._scores) + 1)
        insort(self._scores, value)
        total = sum(self._capital.values())
        self._capital = {
            bet: (own * (1 - _JUMP) + total * _JUMP / len(_BETS)) * (1 + bet * (rank - 0.5))
            for bet, own in self._capital.items()
        }
        is_alarm = sum(self._capital.values()) >= 1 / self._share and self._alarmed_at is None
        if is_alarm:
            self._alarmed_at = self._counts["answers"]
        state = self._state() if is_alarm else None
        if len(self._scores) >= self._most:
            self._begin(self._share / 2)
        return state


def _ranked(score: float | None) -> float:
    """Return where a score stands: all unknown ones together, behind the most uncertain."""
    return math.inf if score is None else score
