"""Servers that are refused at their start."""

from types import SimpleNamespace

import pytest

from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.backends.server.serving.start_checks import RUST_FRONT_END, check_server


def config(mode: str = "raw_logprobs", **parallel: bool) -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(logprobs_mode=mode),
        parallel_config=SimpleNamespace(**parallel),
    )


def test_what_works():
    check_server(config())
    check_server(config(enable_batch_sharded_sampling=False))


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logprobs", "processed_logits"])
def test_statistics_are_of_raw_log_probabilities(mode):
    with pytest.raises(ConfigurationError, match=f"--logprobs-mode is {mode}.*raw_logprobs"):
        check_server(config(mode))


def test_columns_have_no_room_in_sharded_sampling():
    with pytest.raises(ConfigurationError, match="batch-sharded sampling"):
        check_server(config(enable_batch_sharded_sampling=True))


def test_the_rust_front_end_has_no_plugins(monkeypatch):
    monkeypatch.setenv(RUST_FRONT_END, "1")
    with pytest.raises(ConfigurationError, match="Rust front end"):
        check_server(config())
    monkeypatch.setenv(RUST_FRONT_END, "0")
    check_server(config())
