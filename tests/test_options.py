"""Every option at every entrance: what is set anywhere has its effect, and nothing is dropped.

The options are the fields of `Settings`, the entrances all classes of the package that take them,
in each way they can be given. A new option without a line in `VALUES`, and a new class without an
entrance here, fail.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from typer.testing import CliRunner

import uq_llm_integrations as uq
from uq_llm_integrations import cli, faces, generators, langchain, llama_index

VALUES: dict[str, Any] = {
    "methods": ["maxprob"],
    "method_options": {"samples": 3},
    "strategy": {"type": "stepwise", "n": 2},
    "uncertain_when": "maxprob > 0.001",
    "on_high_uncertainty": "abstain",
    "abstention_text": "No idea.",
    "token_scores": True,
    "early_stop": {"above": 3.0, "window": 2},
    "stop_if": "token_max(entropy) > 9",
    "calibration": str(Path(__file__).parent / "calibration" / "entropy.json"),
    "risk": 0.25,
    "group": "law",
    "calibration_mismatch": "warn",
    "n": 2,
    "top_logprobs": 3,
    "temperature": 0.3,
    "max_tokens": 7,
    "stop": ["!"],
    "sampling": {"top_p": 0.5},
    "chat_template": True,
    "chat_template_kwargs": {"enable_thinking": False},
    "allow_special_tokens": True,
    "tool_parser": "hermes",
    "reasoning_parser": "deepseek_r1",
    "logprobs": True,
    "timeout": 9.0,
    "max_retries": 2,
}
"""A value that differs from the default, in the form of a configuration file."""

WITH = {
    "on_high_uncertainty": {"uncertain_when": VALUES["uncertain_when"]},
    "strategy": {"temperature": 0.5},
    "stop_if": {"n": 1},
    "calibration": {"calibration_mismatch": "warn"},
    "calibration_mismatch": {"calibration": VALUES["calibration"]},
    "risk": {"calibration": VALUES["calibration"], "calibration_mismatch": "warn"},
    "group": {"calibration": VALUES["calibration"], "calibration_mismatch": "warn"},
}
"""What else an option needs to make sense."""

CHAT_ONLY = {"tool_parser", "reasoning_parser", "logprobs"}
STEPWISE = {"strategy": {"type": "stepwise", "n": 2}}


class RecordedError(Exception):
    """Ends a call where its settings are known."""


Entrance = Callable[[dict[str, Any]], uq.Settings]


def backend() -> uq.ScriptedBackend:
    return Ending(["Paris"])


def file(options: dict[str, Any]) -> dict[str, Any]:
    return {"generator": {"type": "vllm", "model": "smollm2"}, **options}


URL = "http://localhost:8000/v1"


def served(options: dict[str, Any]) -> dict[str, Any]:
    return {"generator": {"type": "vllm_server", "base_url": URL}, **options}


class Ending(uq.ScriptedBackend):
    """Ends every call once it gets to the backend."""

    async def generate(self, request: uq.Request, monitor: Any = None) -> NoReturn:
        raise RecordedError

    async def score_all(self, *arguments: Any) -> NoReturn:
        raise RecordedError


def called(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> uq.Settings:
    """Return the settings that a call of a face has when it gets to the backend."""
    seen: list[uq.Settings] = []
    request = uq.UncertaintyModel.request

    def record(self: uq.UncertaintyModel, ids: Any, *given: Any, **more: Any) -> uq.Request:
        made = request(self, ids, *given, **more)
        seen.append(self.settings.updated({"stop": made.sampling.get("stop")}))
        return made

    monkeypatch.setattr(uq.UncertaintyModel, "request", record)
    with pytest.raises(RecordedError):
        call()
    return seen[-1]


def entrances(monkeypatch: pytest.MonkeyPatch) -> dict[str, Entrance]:
    """All ways in: construction, configuration file, and call."""
    chat, llm = langchain.ChatVLLMUncertainty, langchain.VLLMUncertaintyLLM
    index, model = llama_index.VLLMUncertaintyLLM, uq.UncertaintyModel
    steps, hybrid = uq.VLLMStepGenerator, uq.HybridUncertaintyGenerator
    return {
        "UncertaintyModel": lambda o: model(backend(), **o).settings,
        "UncertaintyModel.with_options": lambda o: model(backend()).with_options(**o).settings,
        "UncertaintyModel.from_config": lambda o: model.from_config(file(o)).settings,
        "UncertaintyModel.from_config, server": lambda o: model.from_config(served(o)).settings,
        "UncertaintyModel.generate": lambda o: called(
            monkeypatch, lambda: model(backend()).generate("?", **o)
        ),
        "UncertaintyModel.chat": lambda o: called(
            monkeypatch, lambda: model(backend()).chat("?", **o)
        ),
        "UncertaintyModel.score": lambda o: called(
            monkeypatch, lambda: model(backend()).score("?", "!", **o)
        ),
        "LangChain chat": lambda o: chat(backend=backend(), **o),
        "LangChain chat, file": lambda o: chat.from_config(file(o)),
        "LangChain chat, call": lambda o: called(
            monkeypatch, lambda: chat(backend=backend()).invoke("?", **o)
        ),
        "LangChain chat, server": lambda o: chat(base_url=URL, **o),
        "LangChain chat, file of a server": lambda o: chat.from_config(served(o)),
        "LangChain completion, server": lambda o: llm(base_url=[URL], **o),
        "LangChain completion": lambda o: llm(backend=backend(), **o),
        "LangChain completion, file": lambda o: llm.from_config(file(o)),
        "LangChain completion, call": lambda o: called(
            monkeypatch, lambda: llm(backend=backend()).invoke("?", **o)
        ),
        "LlamaIndex": lambda o: index(backend=backend(), **o),
        "LlamaIndex, server": lambda o: index(base_url=URL, **o),
        "LlamaIndex, file": lambda o: index.from_config(file(o)),
        "LlamaIndex, call": lambda o: called(
            monkeypatch, lambda: index(backend=backend()).complete("?", **o)
        ),
        "VLLMStepGenerator": lambda o: (
            steps(backend(), **{"strategy": uq.Stepwise(2), **o}).model.settings
        ),
        "VLLMStepGenerator.from_config": lambda o: (
            steps.from_config(file({**STEPWISE, **o})).model.settings
        ),
        "VLLMStepGenerator, call": lambda o: called(
            monkeypatch, lambda: steps(backend()).generate("?", **o)
        ),
        "HybridUncertaintyGenerator": lambda o: hybrid(backend=backend(), **o).model.settings,
        "HybridUncertaintyGenerator.from_config": lambda o: (
            hybrid.from_config(file(o)).model.settings
        ),
        "HybridUncertaintyGenerator, call": lambda o: called(
            monkeypatch,
            lambda: hybrid(backend=backend()).generate_with_uncertainty("?", **o),
        ),
        "command line": lambda o: called_by_command_line(monkeypatch, o),
    }


def called_by_command_line(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> uq.Settings:
    seen: list[uq.Settings] = []
    from_config = uq.UncertaintyModel.from_config

    def record(config: Any) -> NoReturn:
        seen.append(from_config(config).settings)
        raise RecordedError

    monkeypatch.setattr(uq.UncertaintyModel, "from_config", record)
    arguments = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", yaml.safe_dump(value, default_flow_style=True))
    ]
    CliRunner().invoke(cli.app, ["ask", "?", *arguments])
    return seen[-1]


NAMES = list(entrances(pytest.MonkeyPatch()))


@pytest.mark.parametrize("entrance", [one for one in NAMES if "chat" not in one])
def test_what_stands_among_sampling_counts_as_the_option(entrance, monkeypatch):
    given = {"strategy": STEPWISE["strategy"]} if "Step" in entrance else {}
    if entrance == "VLLMStepGenerator":
        given["strategy"] = uq.Stepwise(2)
    sampling = {"temperature": 0.3, "max_tokens": 7, "top_p": 0.5}
    settings = entrances(monkeypatch)[entrance]({**given, "sampling": sampling})
    assert settings.all_sampling() == sampling


def test_every_option_has_a_value_here():
    assert VALUES.keys() == uq.Settings.model_fields.keys()
    json.dumps(VALUES)


def test_every_class_that_takes_options_is_an_entrance():
    rooms = (faces, generators, langchain, llama_index)
    found = {
        one.__name__
        for room in rooms
        for one in vars(room).values()
        if inspect.isclass(one) and hasattr(one, "from_config") and "Face" not in one.__name__
    }
    kinds = {"ChatVLLMUncertainty", "VLLMUncertaintyLLM", "UncertaintyLLM", "UncertaintyChat"}
    same = {
        name.replace(kind, "VLLM")
        for name in found
        for kind in ("HuggingFace", "Hybrid")
        if kind in name
    }  # they differ in the backend alone
    generator = {"VLLMStepGenerator", "HybridUncertaintyGenerator", "VLLMUncertaintyGenerator"}
    assert found | same <= kinds | generator | found & {
        "ChatHuggingFaceUncertainty", "ChatHybridUncertainty", "HuggingFaceUncertaintyLLM",
        "HybridUncertaintyLLM", "UncertaintyModel", "Configuration",
    }  # fmt: skip  # a list of names


@pytest.mark.filterwarnings("ignore:the calibration was made with something else")
@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("entrance", NAMES)
def test_an_option_has_its_effect(entrance, option, monkeypatch):
    given = {**WITH.get(option, {}), option: VALUES[option]}
    if option == "strategy" and entrance == "VLLMStepGenerator":
        given["strategy"] = uq.Stepwise(2)
    make = entrances(monkeypatch)[entrance]
    if option in CHAT_ONLY and entrance.startswith("LangChain completion"):
        with pytest.raises((uq.ConfigurationError, uq.InvalidRequestError), match=option):
            make(given)
        return
    expected = uq.Settings(**given)
    settings = make(given)
    assert repr(getattr(settings, option)) == repr(getattr(expected, option))
    if option != "chat_template":
        assert getattr(expected, option) != getattr(uq.Settings(), option)
