"""Where vLLM's log lines go."""

import logging
import os
import sys

import pytest

from uq_llm_integrations.backends.vllm.log_stream import (
    CONFIGURATION,
    STDERR,
    STREAM,
    log_to_stderr,
)


@pytest.fixture
def handler(monkeypatch):
    """vLLM's, as it is where vLLM was imported before this package, with nothing chosen."""
    for name in (STREAM, CONFIGURATION):
        monkeypatch.delenv(name, raising=False)
    handler = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging.getLogger("vllm"), "handlers", [handler])
    return handler


def test_log_lines_go_to_stderr(handler, monkeypatch):
    log_to_stderr()
    assert handler.stream is sys.stderr
    assert os.environ[STREAM] == STDERR


@pytest.mark.parametrize("name", [STREAM, CONFIGURATION])
def test_who_has_chosen_keeps_the_choice(handler, monkeypatch, name):
    monkeypatch.setenv(name, "ext://sys.stdout")
    log_to_stderr()
    assert handler.stream is sys.stdout
