"""lm-polygraph, whose estimators are what ours are held against."""

from types import ModuleType

import pytest

from uq_llm_integrations.methods import polygraph


@pytest.fixture(scope="session")
def estimators() -> ModuleType:
    """lm-polygraph's estimators; their import takes from ten seconds to a minute."""
    return polygraph.estimators()
