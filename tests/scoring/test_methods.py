import subprocess
import sys

import pytest

from uq_llm_integrations.errors import UnknownMethodError
from uq_llm_integrations.scoring.methods import ALIASES, METHODS, check_methods, find_method


def test_the_source_documents_names_are_aliases():
    wanted = {"entropy", "perplexity", "maxprob", "self_certainty", "renyi_neg", "fisher_rao"}
    assert set(ALIASES) == wanted
    assert {find_method(name).name for name in wanted} <= set(METHODS)


def test_an_unknown_method_is_refused_with_the_nearest_names():
    with pytest.raises(UnknownMethodError, match="did you mean 'entropy'"):
        check_methods(["perplexity", "entrpy"])


def test_estimators_load_without_the_rest_of_lm_polygraph():
    program = (
        "import sys\n"
        "from uq_llm_integrations.scoring.methods import METHODS\n"
        "from uq_llm_integrations.scoring.polygraph import load_estimator\n"
        "assert not any('polygraph_est' in name for name in sys.modules)\n"
        "for method in METHODS.values(): load_estimator(method.estimator)\n"
        "assert not {'lm_polygraph', 'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
