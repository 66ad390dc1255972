"""How many examples the property tests of whatever comes from outside run."""

import os
from collections.abc import Callable
from typing import TypeVar

import hypothesis
import pytest

Test = TypeVar("Test", bound=Callable[..., object])

EXAMPLES = int(os.environ.get("UQ_LLM_FUZZ_EXAMPLES", "2000"))


def fuzz() -> Callable[[Test], Test]:
    """Mark a property test that runs 2,000 examples, and 50,000 under ``tox run -e fuzz``."""

    def marked(test: Test) -> Test:
        return pytest.mark.fuzz(hypothesis.settings(max_examples=EXAMPLES)(test))

    return marked
