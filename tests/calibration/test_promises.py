"""1,000 calibration sets each: a promise is broken no more often than it says.

The populations and the other thresholds are those of `benchmarks.calibration`, which measures more
sizes; here with the share that the binomial leaves to chance once in ten thousand.
"""

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.calibration import DELTA, KINDS, SPLITS, Population, measured, population
from uq_llm_integrations.calibration import fit_group_thresholds, fit_threshold

MOST_BROKEN = binom.ppf(0.9999, SPLITS, DELTA) / SPLITS

people = cache(population)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "risk"), [(30, 0.1), (30, 0.25), (200, 0.1)])
def test_learn_then_test_keeps_its_promise(kind, count, risk):
    population = people(kind)
    found = measured(population, count, "learn then test", risk=risk)
    assert found["broken"] <= MOST_BROKEN
    assert found["coverage"] <= measured(population, count, "oracle", risk=risk)["coverage"] + 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "risk"), [(30, 0.1), (200, 0.03)])
def test_conformal_risk_control_keeps_its_promise(kind, count, risk):
    found = measured(people(kind), count, "conformal", risk=risk)
    assert found["wrong of all"] <= risk + 4 * found["deviation"] / SPLITS**0.5


def test_a_naive_threshold_keeps_none():
    assert measured(people("smooth"), 200, "naive")["broken"] > 0.4


@pytest.mark.parametrize("wrong", [0.101, 0.11])
@pytest.mark.parametrize("levels", [None, 5])
def test_what_is_just_worse_than_promised_is_not_promised(wrong, levels):
    """Whatever the threshold, a little more than 10% are wrong: each one given breaks it."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(SPLITS):
        scores = rng.random(200) if levels is None else rng.integers(levels, size=200)
        broken += fit_threshold(scores, rng.random(200) >= wrong, risk=0.1).value is not None
    assert broken / SPLITS <= MOST_BROKEN


def test_each_group_keeps_its_promise_where_the_whole_would_hide_it():
    """One question in five is of a hard kind; its answers are wrong more often at every score."""
    rng = np.random.default_rng(1)
    size, risk = 20_000, 0.1
    hard = rng.random(size) < 0.2
    scores = rng.random(size)
    right = rng.random(size) >= np.where(hard, 0.05 + 0.6 * scores, 0.3 * scores**2)
    kinds = {"hard": hard, "easy": ~hard}
    groups = np.where(hard, "hard", "easy")
    wholes = {kind: Population(scores[of], right[of]) for kind, of in kinds.items()}
    broken = {"hard": 0, "easy": 0, "hard, by the whole": 0}
    for _ in range(300):
        rows = rng.integers(size, size=600)
        sample = scores[rows], right[rows]
        fitted = fit_group_thresholds(*sample, groups[rows], risk=risk)
        for kind, whole in wholes.items():
            broken[kind] += whole.breaks(fitted.threshold(kind).value, risk)
        pooled = fit_threshold(*sample, risk=risk).value
        broken["hard, by the whole"] += wholes["hard"].breaks(pooled, risk)
    most = binom.ppf(0.9999, 300, DELTA)
    assert broken["hard"] <= most and broken["easy"] <= most
    assert broken["hard, by the whole"] > 250
