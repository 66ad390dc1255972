"""Options as plain data, and back."""

from dataclasses import dataclass

import pytest

from uq_llm_integrations import (
    Abstain,
    BestOfN,
    ChatVLLMUncertainty,
    ConfigurationError,
    EarlyStop,
    MethodOptions,
    Result,
    Retry,
    ScriptedBackend,
    Single,
    UncertaintyModel,
)
from uq_llm_integrations.settings import Settings
from uq_llm_integrations.strategies.base import Strategy


@pytest.mark.parametrize("mode", ["python", "json"])
@pytest.mark.parametrize(
    "options",
    [
        {"strategy": Single()},
        {"strategy": Abstain(Retry(BestOfN(2), "entropy > 1", attempts=2), "entropy > 2")},
        {"uncertain_when": "entropy > 1 and not agreement >= 0.5", "stop_if": "perplexity > 9"},
        {"early_stop": EarlyStop(above=1.5), "methods": ["entropy", "rauq"], "top_p": 0.9},
        {"method_options": MethodOptions(samples=3)},
    ],
)
def test_options_are_read_back_from_their_plain_data(options, mode):
    settings = Settings(**options)
    assert Settings(**settings.model_dump(mode=mode, exclude_defaults=True)) == settings
    assert Settings(**settings.model_dump()) == settings


def test_a_strategy_that_files_do_not_know_is_described():
    @dataclass(frozen=True)
    class Own(Strategy):
        async def __call__(self, run) -> Result:
            return await run.assess(await run.sample())

    assert Settings(strategy=Own()).model_dump()["strategy"] == repr(Own())


def test_a_framework_class_is_written_with_its_options():
    chat = ChatVLLMUncertainty(
        backend=ScriptedBackend(["a"]), strategy=BestOfN(2), uncertain_when="entropy > 1"
    )
    data = chat.model_dump()
    assert (data["strategy"]["type"], data["uncertain_when"]) == ("best_of_n", "entropy > 1")


@pytest.mark.parametrize("name", ["density", "head"])
def test_what_was_fitted_needs_its_model(name, tmp_path):
    with pytest.raises(ConfigurationError, match=f"method_options: {name}.*model: Field required"):
        UncertaintyModel(ScriptedBackend(["a"]), method_options={name: {"folder": tmp_path}})
