"""lm-polygraph: equal numbers on equal data, its estimators by name, and life without it."""

import logging
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from tests.methods.helpers import add_scores, request, scored
from uq_llm_integrations import (
    METHODS,
    Candidate,
    ConfigurationError,
    Context,
    MethodOptions,
    MethodUnavailableError,
    MissingDependencyError,
    ScriptedBackend,
    TokenTrace,
    UnknownMethodError,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.methods import polygraph
from uq_llm_integrations.methods.polygraph import STATISTICS, batch_statistics
from uq_llm_integrations.methods.registry import WITHDRAWN, find_method

SIZE = 256
NEGATED = {"RenyiNeg", "FisherRao"}
"""lm-polygraph's grow as the model gets surer."""

ARGUMENTS = {
    "SemanticEntropyEmpirical": {"class_probability_estimation": "frequency"},
    "DegMatJaccard": {"similarity_score": "Jaccard_score"},
    "EccentricityJaccard": {"similarity_score": "Jaccard_score"},
    "EigValLaplacianJaccard": {"similarity_score": "Jaccard_score"},
    "ClaimConditionedProbabilityClaim": {"is_stopword": lambda word: False},
}
SHARED_CLASS = {
    "MeanNegativeLogLikelihood": "Perplexity",
    "MeanNegativeLogLikelihoodClaim": "PerplexityClaim",
    "SemanticEntropyEmpirical": "SemanticEntropy",
    "SemanticEntropyPolygraph": "SemanticEntropy",
    "DegMatJaccard": "DegMat",
    "EccentricityJaccard": "Eccentricity",
    "EigValLaplacianJaccard": "EigValLaplacian",
}
OURS_ALONE = {
    "perplexity",
    "claim_perplexity",
    "length_adjusted_nll",
    "span_sequence_probability",
    "span_perplexity",
    "span_mean_entropy",
    "MaximumTokenEntropy",
    "RaoBlackwellEntropy",
    "TokenClaimConditionedProbability",
    "BoostedProbClaim",  # theirs fails on the shape of any batch; see test_alternatives
    "PTrueEmpirical",  # it, and the next three, are read from texts; theirs gather their own
    "Verbalized1S",
    "Verbalized2S",
    "Linguistic1S",
}
COMPARED = [
    name
    for name, method in METHODS.items()
    if method.category in {"logprob", "sampling", "prompting"} and name not in OURS_ALONE
]


def random_trace(tokens: bytes, seed: int) -> TokenTrace:
    """All that can be known of random distributions, in which these tokens were sampled."""
    logits = np.random.default_rng(seed).normal(size=(len(tokens), SIZE)) * 3
    logits[np.arange(len(tokens)), list(tokens)] += 6
    logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    own = logprobs[np.arange(len(tokens)), list(tokens)]
    return TokenTrace(
        SIZE,
        own,
        rank=1 + (logprobs > own[:, np.newaxis]).sum(-1),
        top_ids=np.broadcast_to(np.arange(SIZE), logprobs.shape),
        top_logprobs=logprobs,
        **exact_statistics(dense_rows(logprobs)),
    )


class Varied(ScriptedBackend):
    """Knows random distributions of any tokens."""

    async def score_all(self, prompt_ids, continuations, top_logprobs=0):
        return [
            Candidate(tuple(prompt_ids), tuple(ids), "", random_trace(bytes(ids), seed))
            for seed, ids in enumerate(continuations)
        ]


class Random:
    """Judges by chance, the same pair always the same."""

    name = "chance"

    async def entailments(self, pairs, question, backend):
        return np.random.default_rng(5).dirichlet(np.ones(3), size=len(pairs))

    async def similarities(self, pairs, question, backend):
        return np.random.default_rng(6).uniform(size=len(pairs))


TEXTS = ["Oslo. A town.", "Oslo it is", "Rome, I think.", "Oslo."]
CANDIDATES = [
    Candidate((63,), tuple(text.encode()), text, random_trace(text.encode(), seed), "length")
    for seed, text in enumerate(TEXTS, 10)
]
OPTIONS = MethodOptions(entailment=Random(), similarity=Random())
BACKEND = Varied(["unused"])


OFFSETS = {"SemanticEntropy": np.logaddexp.reduce([one.trace.logprob.sum() for one in CANDIDATES])}
"""What ours differ by: the samples' probabilities sum to 1."""


async def expected(name: str, estimators: ModuleType) -> list:
    """What lm-polygraph's estimator gives for each candidate, from the same evidence."""
    kind = getattr(estimators, SHARED_CLASS.get(name, name))
    context = Context(MeteredBackend(BACKEND), request(), CANDIDATES, OPTIONS)
    reads = set(kind(**ARGUMENTS.get(name, {})).stats_dependencies)
    reads |= {"claims"} if METHODS[name].level == "claim" else set()
    columns = {one: await context.of(STATISTICS[one]) for one in reads}
    found = []
    for index, candidate in enumerate(CANDIDATES):
        given = {one: column[index] for one, column in columns.items()}
        (value,) = np.array(
            [kind(**ARGUMENTS.get(name, {}))(batch_statistics(candidate, given))], float
        )
        found.append(np.ravel(value))
    await context.close()
    return found


@pytest.mark.parametrize("name", COMPARED)
async def test_scores_equal_lm_polygraphs_on_the_same_data(name, estimators):
    """Each token keeps its score, where lm-polygraph drops the last one."""
    result = await add_scores(CANDIDATES, [name], BACKEND, request(), OPTIONS)
    for scores, value in zip(result.scores, await expected(name, estimators), strict=True):
        score = scores[name]
        assert score.is_known, score.reason
        if METHODS[name].level == "token":
            ours = np.array(score.tokens[:-1])
        elif METHODS[name].level == "claim":
            ours = np.array([claim.value for claim in score.claims])
        else:
            ours = np.array([score.value])
        value = (-value if name in NEGATED else value) + OFFSETS.get(name, 0.0)
        np.testing.assert_allclose(ours, value, rtol=0, atol=1e-9)


BLOCKED = """
import asyncio, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lm_polygraph":
            raise ModuleNotFoundError(f"no module named {name}", name=name)

sys.meta_path.insert(0, Blocked())
from tests.methods.helpers import scored
from uq_llm_integrations import (
    METHODS, MethodUnavailableError, ScriptedBackend, UnknownMethodError
)
from uq_llm_integrations.methods.registry import affordable_methods, check_available, find_method

capabilities = ScriptedBackend([]).capabilities
names = affordable_methods(capabilities)
"""


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", BLOCKED + program], check=True)


def test_methods_that_are_numpy_score_where_lm_polygraph_is_absent():
    run(
        "script = ['Oslo. Confidence: 0.4', 'probably Rome']\n"
        "result = asyncio.run(scored(script, *names, samples=3))\n"
        "needed = 'MeanTokenEntropy perplexity SelfCertainty RenyiNeg FisherRao LabelProb '\n"
        "needed += 'CocoaMSP EigenScore RAUQ CSL PTrue Verbalized1S MaximumClaimProbability'\n"
        "for name in needed.split():\n"
        "    assert result.score(name).is_known, name\n"
        "assert not {'lm_polygraph', 'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
    )


def test_a_method_that_needs_lm_polygraph_says_how_to_install_it():
    run(
        "assert 'DegMat' not in names\n"
        "try: check_available(['deg_mat'], capabilities)\n"
        "except MethodUnavailableError as error: assert 'integrations[polygraph]' in str(error)\n"
        "else: raise AssertionError\n"
    )


def test_without_lm_polygraph_its_classes_are_unknown():
    run(
        "try: find_method('RandomBaselineClaim')\n"
        "except UnknownMethodError: pass\n"
        "else: raise AssertionError\n"
    )


def test_importing_estimators_that_are_absent_names_the_extra(monkeypatch):
    monkeypatch.setattr(polygraph, "import_module", missing_module)
    monkeypatch.setattr(polygraph, "has_polygraph", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"uq-llm-integrations\[polygraph\]"):
        polygraph.estimators.__wrapped__()


def test_an_import_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(polygraph, "import_module", missing_module)
    with pytest.raises(ConfigurationError, match="cannot be imported: no module named spacy"):
        polygraph.estimators.__wrapped__()


def missing_module(name: str) -> ModuleType:
    raise ModuleNotFoundError("no module named spacy", name="spacy")


def test_it_is_imported_where_nothing_has_imported_vllm_before():
    code = "from uq_llm_integrations.methods.polygraph import estimators; estimators()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_slow_import_is_logged_once_with_its_seconds(monkeypatch, caplog, estimators):
    monkeypatch.setattr(polygraph, "SLOW_IMPORT", -1.0)
    polygraph.estimators.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert polygraph.estimators() is polygraph.estimators() is estimators
    assert caplog.text.count("the import of lm-polygraph took") == 1
    assert "seconds" in caplog.text


LATER = """
import numpy as np
from lm_polygraph.estimators import Estimator

class Longest(Estimator):
    reads, unit = ["greedy_log_likelihoods", "input_texts"], "sequence"

    def __init__(self, weight=2.0):
        super().__init__(self.reads, self.unit)
        self.weight = weight

    def __str__(self):
        return type(self).__name__

    def __call__(self, stats):
        pairs = zip(stats["input_texts"], stats["greedy_log_likelihoods"])
        return np.array([self.weight * len(text) - sum(row) for text, row in pairs])

class Each(Longest):
    reads, unit = ["greedy_tokens"], "token"

    def __call__(self, stats):
        return np.concatenate([np.array(ids[:-1], float) for ids in stats["greedy_tokens"]])

class Forgetful(Longest):
    reads = []

    def __call__(self, stats):
        return stats["what it never declared"]

class Whole(Longest):
    reads = ["greedy_log_probs"]

class Demanding(Longest):
    def __init__(self, path, *, model):
        super().__init__()

class Broken(Longest):
    def __init__(self):
        raise ValueError("no licence")
"""


@pytest.fixture
def later(estimators, own_registry, tmp_path, monkeypatch):
    """A later lm-polygraph, with estimators that nobody here has seen."""
    (tmp_path / "later_ones.py").write_text(LATER)
    monkeypatch.syspath_prepend(tmp_path)
    kinds = {name: one for name, one in vars(import_module("later_ones")).items() if name[0] != "_"}
    for name in kinds.keys() - {"np", "Estimator"}:
        monkeypatch.setattr(estimators, name, kinds[name], raising=False)
    yield
    sys.modules.pop("later_ones")


async def score_of(name: str):
    return (await scored(["Oslo"], name)).score(name)


async def test_an_unlisted_class_gives_what_its_estimator_gives(later):
    assert (await score_of("Longest")).value == pytest.approx(2 * 1 - 4 * np.log(0.9))
    assert find_method("Longest").level == "sequence"


async def test_what_it_gives_for_tokens_is_taken_as_it_is(later):
    assert (await score_of("Each")).tokens == tuple(b"Osl")


async def test_one_that_fails_on_what_it_is_given_has_a_reason(later):
    assert "KeyError: 'what it never declared'" in (await score_of("Forgetful")).reason


async def test_whole_distributions_are_there_only_where_they_were_requested(later):
    assert "top_logprobs=-1" in (await score_of("Whole")).reason


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
def test_what_an_estimator_needs_beyond_a_backend_is_said(name, why):
    with pytest.raises(MethodUnavailableError, match=why):
        find_method(name)


def test_every_estimator_of_lm_polygraph_is_found_or_refused_with_a_reason(estimators):
    kinds = [one for one in vars(estimators).values() if isinstance(one, type)]
    names = {one.__name__ for one in kinds if issubclass(one, estimators.Estimator)} - {"Estimator"}
    refused = set()
    for name in names:
        try:
            assert find_method(name).level in {"sequence", "token", "claim"}
        except MethodUnavailableError:
            refused.add(name)
    ensembles = {name for name in names if name.startswith(("EPT", "EPS", "PE"))}
    ensembles -= {"Perplexity", "PerplexityClaim"}
    backwards = {name for name in WITHDRAWN if name in names}
    assert refused == ensembles | backwards | {"Focus", "FocusClaim", "SemanticEntropyToken"}


def test_names_that_are_no_class_are_unknown(estimators):
    for name in ("entrpy", "Nothing", "np", "Dict"):
        with pytest.raises(UnknownMethodError):
            find_method(name)
