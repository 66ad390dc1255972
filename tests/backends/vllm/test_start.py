import pytest

from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.backends.vllm.launch import REQUEST_KEY
from uq_llm_integrations.backends.vllm.params import check_seed, generation_params, why_not_watched
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError
from uq_llm_integrations.records import Request


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


def test_samples_have_seeds_and_ids_of_their_own():
    request = Request((1,), n=2, sampling={"seed": 5, "extra_args": {"mine": 1}})
    params = generation_params(request, 1, watched_as="x", fallback_k=20, whole=True)
    assert params.seed == 6
    assert params.n == 1
    assert params.extra_args == {"mine": 1, REQUEST_KEY: "x"}
    assert request.sampling["extra_args"] == {"mine": 1}


def test_tokens_that_the_probe_keeps_are_not_asked_of_the_engine():
    names = {"watched_as": "x", "keeps_tokens": True, "fallback_k": 20, "whole": True}
    assert generation_params(Request((1,)), 0, **names).logprobs is None
    assert generation_params(Request((1,), top_logprobs=5), 0, **names).logprobs == 5


def test_the_top_k_stand_in_for_the_probe():
    params = generation_params(Request((1,)), 0, watched_as=None, fallback_k=20, whole=True)
    assert params.logprobs == 20


def test_penalties_reach_the_v2_probe_only():
    request = Request((1,), sampling={"presence_penalty": 0.5})
    assert why_not_watched(request, use_v2_model_runner=False) is None
    assert "presence_penalty" in why_not_watched(request, use_v2_model_runner=True)


def test_a_seed_that_could_kill_the_engine_is_refused():
    from types import SimpleNamespace as Space

    config = Space(
        device_config=Space(device_type="cpu"),
        scheduler_config=Space(enable_chunked_prefill=True),
    )
    with pytest.raises(InvalidRequestError, match="chunked prefill"):
        check_seed(Request((1,), sampling={"seed": 1}), config)
    check_seed(Request((1,)), config)
