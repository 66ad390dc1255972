"""Estimators of lm-polygraph that are not in the catalogue can be named all the same."""

import subprocess
import sys

import numpy as np
import pytest

from uq_llm_integrations.backends.scripted import ScriptedBackend
from uq_llm_integrations.errors import MethodUnavailableError, UnknownMethodError
from uq_llm_integrations.methods import polygraph, unlisted
from uq_llm_integrations.methods.assess import assessed  # noqa: F401  # enters all providers
from uq_llm_integrations.methods.context import PROVIDERS
from uq_llm_integrations.methods.registry import METHODS, find_method
from uq_llm_integrations.records import Request
from uq_llm_integrations.strategies.best_of_n import Single
from uq_llm_integrations.strategies.drive import drive

LATER = """
import numpy as np
from .estimator import Estimator

class Longest(Estimator):
    def __init__(self, weight=2.0):
        super().__init__(["greedy_log_likelihoods", "input_texts"], "sequence")
        self.weight = weight

    def __call__(self, stats):
        pairs = zip(stats["input_texts"], stats["greedy_log_likelihoods"])
        return np.array([self.weight * len(text) - sum(row) for text, row in pairs])

class Each(Estimator):
    def __init__(self):
        super().__init__(["greedy_tokens"], "token")

    def __call__(self, stats):
        return np.concatenate([np.array(ids[:-1], float) for ids in stats["greedy_tokens"]])

class Forgetful(Estimator):
    def __init__(self):
        super().__init__([], "sequence")

    def __call__(self, stats):
        return stats["what it never declared"]

class Whole(Estimator):
    def __init__(self):
        super().__init__(["greedy_log_probs"], "sequence")

    def __call__(self, stats):
        return [0.0]

class Demanding(Estimator):
    def __init__(self, path, *, model):
        super().__init__([], "sequence")

class Broken(Estimator):
    def __init__(self):
        raise ValueError("no licence")
"""


@pytest.fixture
def later(tmp_path, monkeypatch):
    """A later lm-polygraph, with estimators that nobody here has seen."""
    (tmp_path / "estimators").mkdir()
    names = "Longest, Each, Forgetful, Whole, Demanding, Broken"
    (tmp_path / "estimators" / "__init__.py").write_text(f"from .later_ones import {names}\n")
    (tmp_path / "estimators" / "later_ones.py").write_text(LATER)
    for module in (polygraph, unlisted):
        monkeypatch.setattr(module, "package_folder", lambda: tmp_path)
    unlisted._modules.cache_clear()
    yield
    unlisted._modules.cache_clear()
    unlisted.unlisted_method.cache_clear()


def scored(name: str):
    request = Request(tuple(b"four"), sampling={"max_tokens": 9})
    return drive(Single(), request, ScriptedBackend(["Oslo"]), [name]).scores[0][name]


def test_it_gives_what_the_estimator_gives(later):
    assert scored("Longest").value == pytest.approx(2 * 4 - 4 * np.log(0.9))
    assert find_method("Longest").level == "sequence"


def test_what_it_gives_for_tokens_is_taken_as_it_is(later):
    assert scored("Each").tokens == tuple(b"Osl")


def test_one_that_fails_on_what_it_is_given_has_a_reason(later):
    assert "KeyError: 'what it never declared'" in scored("Forgetful").reason


def test_whole_distributions_are_there_only_where_they_were_asked_for(later):
    assert "top_logprobs=-1" in scored("Whole").reason


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Demanding", "arguments without defaults, which a name cannot give: path, model"),
        ("Broken", "cannot be made: ValueError: no licence"),
    ],
)
def test_one_that_cannot_be_made_is_refused_with_the_reason(later, name, why):
    with pytest.raises(MethodUnavailableError, match=why):
        find_method(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("EPTtu", "ensemble_token_scores, which cannot be gathered"),
        ("Focus", "gamma, p, model_name, path, idf_dataset"),
        ("SemanticEntropyToken", "tokenizer_path, tokenizer_save_path"),
    ],
)
def test_what_the_installed_lm_polygraph_needs_beyond_a_backend_is_told(name, why):
    with pytest.raises(MethodUnavailableError, match=why):
        find_method(name)


def test_every_estimator_of_lm_polygraph_is_found_or_refused_with_a_reason():
    refused = set()
    for name in unlisted._modules():
        try:
            assert find_method(name).level in {"sequence", "token", "claim"}
        except MethodUnavailableError:
            refused.add(name)
    ensembles = {name for name in unlisted._modules() if name.startswith(("EPT", "EPS", "PE"))}
    ensembles -= {"Perplexity", "PerplexityClaim"}
    assert refused == ensembles | {"Focus", "FocusClaim", "SemanticEntropyToken"}


def test_a_class_of_the_catalogue_is_known_by_its_own_name_too():
    assert find_method("MahalanobisDistanceSeq") is METHODS["MahalanobisDistance"]
    assert find_method("SemanticEntropy") is METHODS["SemanticEntropy"]


def test_other_names_are_unknown():
    with pytest.raises(UnknownMethodError, match="did you mean 'entropy'"):
        find_method("entrpy")


def test_all_that_can_be_gathered_is_known_to_whoever_makes_methods():
    assert set(PROVIDERS) - {"samples", "internals"} == unlisted.GATHERED


def test_neither_lm_polygraph_nor_what_it_imports_is_loaded_for_a_refusal():
    program = (
        "import sys\n"
        "from uq_llm_integrations.methods.registry import find_method\n"
        "for name in ('RandomBaselineClaim', 'Focus', 'perplexity'):\n"
        "    try: find_method(name)\n"
        "    except ValueError: pass\n"
        "assert not {'lm_polygraph', 'transformers', 'spacy', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
