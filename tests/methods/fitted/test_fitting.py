"""Fits on texts that stream through a backend, blocking and not."""

from dataclasses import replace

import numpy as np
import pytest

from uq_llm_integrations import (
    ConfigurationError,
    MethodUnavailableError,
    ScriptedBackend,
    ScriptedLine,
    afit_density,
    afit_head,
    fit_density,
    fit_head,
)

CHARACTERS = list("aKn3?~éßЖ中 ")


def texts(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(CHARACTERS, rng.integers(3, 12))) for _ in range(120)]


EXAMPLES = texts(0)
SCRIPT = {
    example: [ScriptedLine(answer, 0.5 + 0.1 * (i % 4))]
    for i, (example, answer) in enumerate(zip(EXAMPLES, texts(1), strict=True))
}
WRONG = [i % 3 == 0 for i in range(120)]


def fitted_twice(fit, afit, *arguments, **more):
    one, other = ScriptedBackend(SCRIPT), ScriptedBackend(SCRIPT)
    return fit(one, *arguments, **more), other.run(afit(other, *arguments, **more))


def test_a_head_is_fitted_the_same_without_blocking():
    ours, awaited = fitted_twice(fit_head, afit_head, EXAMPLES, WRONG, layer=2)
    np.testing.assert_array_equal(ours.weight, awaited.weight)
    assert (ours.bias, ours.layer, ours.model) == (awaited.bias, 2, "scripted")


def test_a_density_is_fitted_the_same_without_blocking():
    ours, awaited = fitted_twice(fit_density, afit_density, EXAMPLES, layer=2, robust=False)
    embedding = np.linspace(0.0, 1.0, 8)
    assert ours.mahalanobis(embedding) == awaited.mahalanobis(embedding)
    assert ours.ppl_md(embedding, 0.3) == awaited.ppl_md(embedding, 0.3)


def test_labels_and_examples_must_be_as_many():
    with pytest.raises(ConfigurationError, match="120 examples and 119 labels"):
        fit_head(ScriptedBackend(SCRIPT), EXAMPLES, WRONG[1:])


def test_the_slow_part_of_a_density_can_be_left_out():
    whole = fit_density(ScriptedBackend(SCRIPT), EXAMPLES)
    without = fit_density(ScriptedBackend(SCRIPT), EXAMPLES, robust=False)
    assert np.isfinite(whole.rde(np.zeros(8)))
    with pytest.raises(ConfigurationError, match="robust=True"):
        without.rde(np.zeros(8))


def test_a_backend_without_hidden_states_is_refused_before_it_answers():
    class Blind(ScriptedBackend):
        @property
        def capabilities(self):
            return replace(super().capabilities, why_no_activations="it is far away")

    backend = Blind(SCRIPT)
    with pytest.raises(MethodUnavailableError, match="it is far away"):
        fit_density(backend, EXAMPLES)
    assert not backend.requests


def test_log_probabilities_of_the_answers_are_ranked():
    density = fit_density(ScriptedBackend(SCRIPT), EXAMPLES, robust=False)
    embedding = np.full(8, 99.0)  # farther than any
    assert density.ppl_md(embedding, 9.0) == 1.0
    assert density.ppl_md(embedding, -np.log(0.65)) == pytest.approx((1 + 2 / 4) / 2)
