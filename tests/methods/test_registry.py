"""How a name finds its method, and how other packages add methods of their own."""

import importlib
import subprocess
import sys

import pytest

from tests.methods.helpers import scored, values
from uq_llm_integrations import (
    METHODS,
    ConfigurationError,
    MethodOptions,
    MethodUnavailableError,
    ScriptedBackend,
    UncertaintyModel,
    UnknownMethodError,
    evidence_method,
    missing_requirements,
    register_method,
    trace_method,
)
from uq_llm_integrations.methods.registry import (
    affordable_methods,
    check_available,
    check_methods,
    find_method,
    list_methods,
)

SOURCE_DOCUMENT = """
    entropy perplexity maxprob self_certainty renyi_neg fisher_rao
    semantic_entropy lexical_similarity num_sem_sets sar deg_mat eccentricity consistency
    mahalanobis relative_mahalanobis rde semantic_density eigen_score kernel_language_entropy
    attention_score rauq p_true verbalized_1s verbalized_2s linguistic uhead
"""

BACKEND = ScriptedBackend(["Paris"])

STRANGER = '''
"""A method of a package that nobody here has heard of."""

from uq_llm_integrations import evidence_method


async def mean_length(context):
    texts = [one.text for one in context.candidates]
    return sum(map(len, texts)) / len(texts)


@evidence_method(
    "brevity",
    summary="How much shorter than the others the answer is, in characters.",
    reference="https://example.org/brevity",
    alias="short",
)
async def brevity(context):
    mean = await context.of(mean_length)
    return [mean - len(one.text) for one in context.candidates]
'''
REGISTERS = "\nfrom uq_llm_integrations import register_method\nregister_method(brevity)\n"


@pytest.fixture
def package(own_registry, tmp_path, monkeypatch):
    """A function that installs a package `stranger` with an entry point."""

    def install(source: str, entry: str = "") -> None:
        (tmp_path / "stranger.py").write_text(source)
        if entry:
            info = tmp_path / "stranger-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
            points = f"[uq_llm_integrations.methods]\nmine = {entry}\n"
            (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("stranger", None)


def test_the_source_documents_methods_have_their_short_names():
    assert {find_method(name).name for name in SOURCE_DOCUMENT.split()} <= set(METHODS)


def test_every_name_of_a_method_finds_it():
    for method in list_methods():
        assert all(find_method(name) is method for name in method.names)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name):
    method = METHODS[name]
    assert method.name == name
    assert method.summary[0].isupper() or method.summary[0].isdigit()
    assert method.summary.endswith(".")
    assert method.reference.startswith("https://")
    assert method.range[0] < method.range[1]
    assert method.cost
    kinds = (method.values, method.gather, method.combine)
    assert [one for one in kinds if one] == [method.function]
    assert method.values is None or method.cost == "nothing"


def test_an_unknown_method_is_refused_with_the_nearest_names():
    with pytest.raises(UnknownMethodError, match="did you mean 'entropy'"):
        check_methods(["perplexity", "entrpy"])


def test_names_of_lm_polygraphs_classes_find_its_numbers():
    """What lm-polygraph calls Perplexity is the perplexity's logarithm."""
    assert find_method("Perplexity").alias == "mean_nll"
    assert find_method("PerplexityClaim").alias == "claim_mean_nll"
    assert find_method("MahalanobisDistanceSeq") is METHODS["MahalanobisDistance"]


def test_neither_the_catalogue_nor_a_typo_imports_lm_polygraph():
    program = (
        "import sys\n"
        "from uq_llm_integrations.methods.registry import find_method, list_methods\n"
        "list_methods()\n"
        "for name in ('SemanticEntropy', 'perplexity', 'entrpy'):\n"
        "    try: find_method(name)\n"
        "    except ValueError: pass\n"
        "assert not {'lm_polygraph', 'transformers', 'spacy', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_stranger_registers_a_method_from_one_short_file(package):
    source = STRANGER + REGISTERS
    assert len(source.strip().splitlines()) <= 25
    package(source)
    importlib.import_module("stranger")
    assert find_method("short").name == "brevity"
    assert values(await scored(["Oslo", "Rome!?"], "short", n=2), "short") == [1.0, -1.0]


async def test_a_stranger_offers_methods_by_an_entry_point(package):
    assert len(STRANGER.strip().splitlines()) <= 25
    package(STRANGER, "stranger:brevity")
    assert values(await scored(["Oslo", "Rome!?"], "brevity", n=2), "brevity") == [1.0, -1.0]


def test_an_entry_point_may_offer_several_methods_which_are_listed(package):
    package(f"{STRANGER}\nMETHODS = (brevity,)\n", "stranger:METHODS")
    assert "brevity" in [method.name for method in list_methods()]
    assert missing_requirements(None, BACKEND)["brevity"] is None


def test_an_entry_point_that_fails_costs_no_other_method(package, caplog):
    package("raise RuntimeError('no licence')", "stranger:METHODS")
    assert len(list_methods()) == len(METHODS)
    assert "'stranger:METHODS' are left out: no licence" in caplog.text


@pytest.mark.parametrize("name", ["entropy", "MeanTokenEntropy", "Perplexity"])
def test_a_name_that_is_taken_is_refused(own_registry, name):
    method = trace_method(name, summary="Mine.", reference="mine")(lambda trace: trace.logprob)
    with pytest.raises(ConfigurationError, match=f"there is a method named '{name}' already"):
        register_method(method)


def test_a_method_may_be_registered_twice(own_registry):
    @evidence_method("mine", summary="Mine.", reference="mine")
    async def mine(context):
        return []

    assert register_method(register_method(mine)) is mine


def test_what_a_method_lacks_is_said_before_anything_is_requested():
    with pytest.raises(MethodUnavailableError, match="mahalanobis needs a density fitted"):
        check_available(["perplexity", "mahalanobis"], BACKEND.capabilities)


def test_requirements_are_said_by_the_names_they_were_requested_by():
    found = missing_requirements(["uhead", "entropy"], BACKEND, MethodOptions())
    assert found["entropy"] is None
    assert "fit_head" in found["uhead"]


def test_affordable_are_the_methods_that_lack_nothing():
    missing = missing_requirements(None, BACKEND)
    assert set(affordable_methods(BACKEND.capabilities)) == {
        name for name, lacks in missing.items() if lacks is None
    }


def test_methods_say_what_they_cost():
    assert METHODS["SemanticEntropy"].cost == "samples, entailment of each pair of samples"
    assert METHODS["perplexity"].cost == "nothing"


def test_a_trace_method_that_raises_costs_no_other_its_score(own_registry):
    @register_method
    @trace_method("broken", summary="Raises.", reference="this test")
    def broken(trace):
        raise KeyError("nothing")

    for condition in ("broken > 1", "token_max(broken) > 1"):
        model = UncertaintyModel(
            ScriptedBackend(["Paris"]), methods=["entropy", "broken"], uncertain_when=condition
        )
        result = model.generate("?")
        assert result.score("entropy").is_known
        assert result.score("broken").reason == "broken failed: KeyError: 'nothing'"
        assert result.decision.is_uncertain
