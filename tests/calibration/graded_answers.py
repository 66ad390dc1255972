"""Graded answers for property tests: scores with ties and unknown ones, right and wrong."""

import numpy as np
from hypothesis import strategies as st

scores = st.one_of(
    st.none(), st.just(float("nan")), st.integers(-3, 3).map(float), st.floats(-100, 100)
)


@st.composite
def graded(draw, least=1, most=40, score=scores):
    """Scores, and whether each answer is right."""
    count = draw(st.integers(least, most))
    return (
        draw(st.lists(score, min_size=count, max_size=count)),
        draw(st.lists(st.booleans(), min_size=count, max_size=count)),
    )


known = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100))


def drawn(seed: int, count: int, wrong: float = 0.4, separation: float = 1.0):
    """Scores that are higher for wrong answers by so many standard deviations, and the grades."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) >= wrong
    return rng.normal(size=count) - separation * right, right
