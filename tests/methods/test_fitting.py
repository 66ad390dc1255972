"""Fits on texts that stream through a backend, blocking and not."""

import numpy as np
import pytest

from uq_llm_integrations.backends.scripted import ScriptedBackend, ScriptedLine
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.fitted.fitting import (
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


def test_the_slow_part_of_a_density_can_be_left_out(monkeypatch):
    fits = []
    part = "uq_llm_integrations.methods.fitted.density._RobustGaussian.fit"
    monkeypatch.setattr(part, lambda texts, seed: fits.append(len(texts)))
    fit_density(ScriptedBackend(SCRIPT), EXAMPLES)
    without = fit_density(ScriptedBackend(SCRIPT), EXAMPLES, robust=False)
    assert fits == [120]
    with pytest.raises(ConfigurationError, match="robust=True"):
        without.rde(np.zeros(8))


def test_perplexities_of_the_answers_are_ranked():
    density = fit_density(ScriptedBackend(SCRIPT), EXAMPLES, robust=False)
    embedding = np.full(8, 99.0)  # farther than any
    assert density.ppl_md(embedding, 9.0) == 1.0
    assert density.ppl_md(embedding, -np.log(0.65)) == pytest.approx((1 + 2 / 4) / 2)
