import subprocess
import sys

import pytest

from uq_llm_integrations.errors import UnknownMethodError
from uq_llm_integrations.methods.registry import ALIASES, check_methods, find_method

SOURCE_DOCUMENT = """
    entropy perplexity maxprob self_certainty renyi_neg fisher_rao
    semantic_entropy lexical_similarity num_sem_sets sar deg_mat eccentricity consistency
    mahalanobis relative_mahalanobis rde semantic_density eigen_score kernel_language_entropy
    attention_score rauq p_true verbalized_1s verbalized_2s linguistic uhead
"""


def test_the_source_documents_methods_have_short_names():
    assert set(SOURCE_DOCUMENT.split()) <= set(ALIASES)
    assert all(find_method(alias).name == name for alias, name in ALIASES.items())


def test_an_unknown_method_is_refused_with_the_nearest_names():
    with pytest.raises(UnknownMethodError, match="did you mean 'entropy'"):
        check_methods(["perplexity", "entrpy"])


def test_estimators_load_without_the_rest_of_lm_polygraph():
    program = (
        "import sys\n"
        "from uq_llm_integrations.methods.registry import METHODS\n"
        "from uq_llm_integrations.methods.polygraph import load_estimator\n"
        "assert not any('polygraph_est' in name for name in sys.modules)\n"
        "for method in METHODS.values():\n"
        "    if method.own is None: load_estimator(method.estimator, **method.options)\n"
        "assert not {'lm_polygraph', 'transformers', 'spacy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
