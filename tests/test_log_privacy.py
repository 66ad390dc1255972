"""What users and models say is in no log, however much is logged, and neither are keys."""

import logging

import pytest

from uq_llm_integrations import (
    ChatVLLMUncertainty,
    ScriptedBackend,
    UncertaintyError,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.testing import Fault, ScriptedServer

ASKED, SAID, KEY = "canaryasked", "canarysaid", "canarykey"
OPTIONS = {
    "methods": ["entropy", "perplexity", "mc_entropy", "p_true", "lexical_similarity"],
    "token_scores": True,
    "uncertain_when": "perplexity > 0",
    "on_high_uncertainty": "abstain",
    "strategy": {"type": "retry", "when": "perplexity > 0", "temperatures": [0.5]},
}


def use(backend, **options) -> None:
    """Ask in every way that there is."""
    model = UncertaintyModel(backend, **options)
    model.generate(ASKED)
    model.generate_all([ASKED, ASKED])
    model.chat([{"role": "user", "content": ASKED}])
    model.score(ASKED, SAID)
    list(UncertaintyModel(backend, token_scores=True).stream(ASKED))
    stream = UncertaintyModel(backend).stream(ASKED)
    next(stream)
    stream.close()
    chat = ChatVLLMUncertainty(backend=backend, **options)
    chat.invoke(ASKED)
    list(ChatVLLMUncertainty(backend=backend).stream(ASKED))


def everything(caplog: pytest.LogCaptureFixture) -> str:
    """All that is known of all records, their fields included."""
    found = [one.getMessage() for one in caplog.records]
    found += [repr(value) for one in caplog.records for value in vars(one).values()]
    return "\n".join(found)


def test_an_embedded_backend_logs_nothing_that_was_said(caplog):
    caplog.set_level(logging.DEBUG)
    use(ScriptedBackend([SAID]), **OPTIONS)
    assert ASKED not in everything(caplog) and SAID not in everything(caplog)


@pytest.mark.loopback
@pytest.mark.parametrize("plugin", [True, False])
def test_a_client_of_servers_logs_nothing_that_was_said_and_no_key(caplog, plugin):
    caplog.set_level(logging.DEBUG)
    with (
        ScriptedServer([SAID], plugin=plugin, api_key=KEY) as server,
        VLLMServerBackend(server.url, api_key=KEY, headers={"X-Team": KEY + "team"}) as backend,
    ):
        use(backend, **OPTIONS)
        server.faults = [Fault(status=503), Fault(drop_at=0), Fault(status=500)]
        for _ in range(3):
            with pytest.raises(UncertaintyError):
                UncertaintyModel(backend).generate(ASKED)
    logged = everything(caplog)
    assert caplog.records
    assert [one for one in (ASKED, SAID, KEY) if one in logged] == []


def test_vllm_itself_logs_no_requests_unless_it_is_told():
    arg_utils = pytest.importorskip("vllm.engine.arg_utils")
    assert arg_utils.AsyncEngineArgs.enable_log_requests is False
