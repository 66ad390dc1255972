"""Method options from plain data, as a configuration file has them."""

import pytest

from uq_llm_integrations import (
    Classifier,
    ConfigurationError,
    EmbeddingSimilarity,
    MethodOptions,
    SentenceEmbeddings,
    ServedJudge,
)
from uq_llm_integrations.coercion import as_method_options


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({"samples": 3}, MethodOptions(samples=3)),
        ({"similarity": "embeddings"}, MethodOptions(similarity=EmbeddingSimilarity())),
        ({"span": r"#### (\d+)"}, MethodOptions(span=r"#### (\d+)")),
        ({"similarity": "judge"}, MethodOptions(similarity=ServedJudge())),
        (
            {"entailment": {"sentence_embeddings": "minilm"}},
            MethodOptions(entailment=SentenceEmbeddings()),
        ),
        (
            {"entailment": {"classifier": "some/nli"}},
            MethodOptions(entailment=Classifier("some/nli")),
        ),
    ],
)
def test_plain_data_mean_the_same_as_the_objects(data, options):
    assert as_method_options(data) == options


def test_options_stay_what_they_are():
    options = MethodOptions(samples=3)
    assert as_method_options(options) is options


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sample": 3}, "method_options: unknown 'sample'; did you mean 'samples'"),
        ({5: 3}, "method_options: unknown 5; allowed are"),
        ({"similarity": "guess"}, "method_options: similarity"),
        ({"entailment": {"classifier": "x", "size": 3}}, "method_options: entailment"),
        ({"density": {"folder": "/no/such/folder", "model": "m"}}, "/no/such/folder"),
        ({"head": {"folder": "/no/such/folder", "model": "m"}}, "/no/such/folder"),
    ],
)
def test_what_means_nothing_is_refused_with_its_name(data, message):
    with pytest.raises(ConfigurationError, match=message):
        as_method_options(data)
