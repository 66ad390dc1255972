import pytest

from uq_llm_integrations import ConfigurationError, VLLMEngineBackend


def test_an_unknown_engine_argument_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigurationError, match="did you mean 'max_model_len'"):
        VLLMEngineBackend("org/name", max_model_length=100)


@pytest.mark.parametrize("arguments", [{}, {"model": "org/name", "engine": object()}])
def test_either_a_model_or_an_engine_is_needed(arguments):
    with pytest.raises(ConfigurationError, match="either"):
        VLLMEngineBackend(**arguments)


def test_something_else_than_an_engine_is_refused():
    with pytest.raises(ConfigurationError, match="AsyncLLM"):
        VLLMEngineBackend(engine="an engine")
