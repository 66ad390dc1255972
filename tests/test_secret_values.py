"""A secret is in nothing that any entrance prints, writes, compares by or raises."""

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, dumps
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from uq_llm_integrations import (
    Configuration,
    HuggingFaceBackend,
    HybridUncertaintyGenerator,
    UncertaintyModel,
    VLLMEngineBackend,
    VLLMServerBackend,
    VLLMStepGenerator,
    errors,
    langchain,
    llama_index,
)
from uq_llm_integrations.backends.hybrid import hybrid_backend
from uq_llm_integrations.backends.vllm import client_compat
from uq_llm_integrations.cli import app
from uq_llm_integrations.identity import canonical
from uq_llm_integrations.secret_names import is_secret_name, sealed
from uq_llm_integrations.secret_values import concealing, opened, without_secrets

SECRET = "hf_s3cretS3cretS3cret"
NESTED = {"aws_secret_access_key": SECRET, "parts": [{"session_token": SECRET}]}
VLLM = {"hf_token": SECRET, "model_loader_extra_config": NESTED}
SERVED = {"base_url": "http://one", "api_key": SECRET, "headers": {"X-Team": SECRET}}
HF = {"token": SECRET, "proxies": {"headers": {"Authorization": SECRET}}}

FRAMEWORKS = [
    kind(model="smollm2", **arguments)
    for kind, arguments in (
        (langchain.ChatVLLMUncertainty, {**VLLM, "api_key": SECRET}),
        (langchain.ChatVLLMUncertainty, {"engine_args": VLLM}),
        (langchain.ChatVLLMUncertainty, SERVED),
        (langchain.VLLMUncertaintyLLM, SERVED),
        (langchain.ChatHybridUncertainty, {"mode": "resident", "vllm": SERVED}),
        (langchain.ChatHuggingFaceUncertainty, {**HF, "api_key": SECRET}),
        (langchain.ChatHybridUncertainty, {"mode": "resident", "vllm": VLLM, "huggingface": HF}),
        (langchain.VLLMUncertaintyLLM, VLLM),
        (langchain.HuggingFaceUncertaintyLLM, HF),
        (langchain.HybridUncertaintyLLM, {"mode": "shared", **VLLM}),
        (llama_index.VLLMUncertaintyLLM, VLLM),
        (llama_index.VLLMUncertaintyLLM, SERVED),
        (llama_index.HuggingFaceUncertaintyLLM, HF),
        (llama_index.HybridUncertaintyLLM, {"mode": "sequential", "vllm": VLLM, "huggingface": HF}),
    )
]
BACKENDS = [
    VLLMEngineBackend("smollm2", **VLLM),
    HuggingFaceBackend("smollm2", **HF),
    hybrid_backend("smollm2", "resident", VLLM, HF),
    VLLMServerBackend(**SERVED),
    hybrid_backend("smollm2", "resident", SERVED, HF),
]
MODELS = [UncertaintyModel(one) for one in BACKENDS] + [
    VLLMStepGenerator(BACKENDS[0]).model,
    HybridUncertaintyGenerator("smollm2", mode="resident", vllm=VLLM, huggingface=HF).model,
]
FILES = [
    {"type": "vllm", "model": "smollm2", **VLLM},
    {"type": "huggingface", "model": "smollm2", **HF},
    {"type": "hybrid", "model": "smollm2", "vllm": VLLM, "huggingface": HF},
    {"type": "vllm_server", **SERVED},
    {"type": "hybrid", "model": "smollm2", "mode": "resident", "vllm": SERVED},
]


def _name(value: Any) -> str:
    return type(value).__name__


def printed(value: Any) -> Iterator[str]:
    """All texts that anything has of itself."""
    yield from (repr(value), str(value), f"{value}", canonical(value))
    yield json.dumps(getattr(value, "__dict__", {}), default=repr)


def dumped(value: Any) -> Iterator[str]:
    """All texts of the forms in which pydantic's classes are written."""
    yield from (repr(value.model_dump()), repr(value.model_dump(mode="json")), repr(dict(value)))
    if not isinstance(value, Configuration):
        yield value.model_dump_json()


def of_framework(one: Any) -> Iterator[str]:
    """All that the framework writes of its class, and what caches and tracers go by."""
    yield from (*printed(one), *dumped(one), json.dumps(one.core.identity), repr(one.saved()))
    yield from (repr(one.saved(with_defaults=True)), repr(one.saved().described()))
    if hasattr(one, "lc_secrets"):
        yield from (
            dumps(one),
            repr(dumpd(one)),
            repr(one.to_json()),
            repr(one._identifying_params),
        )
        yield from (repr(one._get_ls_params()), repr(one.get_lc_namespace()))
        yield one._get_llm_string() if hasattr(one, "_get_llm_string") else repr(one.dict())
    else:
        yield from (one.to_json(), repr(one.to_dict()), repr(one.to_payload()), repr(one.dict()))
        yield repr(one.metadata) if one.known_context_length() else ""


def of_error(error: BaseException | None) -> str:
    """The text of an error, of its traceback, and of all errors that are known by it."""
    texts: list[str] = []
    while error is not None:
        texts += [str(error), repr(error), *traceback.format_exception(error)[-1:]]
        if isinstance(error, ValidationError):
            texts.append(repr(error.errors()))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("one", FRAMEWORKS, ids=_name)
def test_a_class_of_a_framework_gives_no_secret_away(one):
    copies = (one, copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)))
    for found in (*copies, one.model_copy(), one.bound({"temperature": 0.5})[0]):
        assert not [text for text in of_framework(found) if SECRET in text]


@pytest.mark.parametrize("one", [*BACKENDS, *MODELS], ids=_name)
def test_a_backend_and_a_model_give_no_secret_away(one):
    for found in (one, copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        texts = [*printed(found), repr(getattr(found, "identity", "")), repr(vars(found))]
        assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("generator", FILES, ids=lambda one: one["type"])
def test_a_configuration_gives_no_secret_away(generator, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({"generator": generator}))
    for read in (Configuration.read(path), Configuration.read({"generator": generator})):
        parts = (read, read.generator, read.generator.arguments(), read.generator.backend())
        texts = [*dumped(read), *(text for part in parts for text in printed(part))]
        assert not [text for text in texts if SECRET in text]


def test_a_secret_of_the_environment_is_one_from_the_first_line(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    source = {"generator": {"model": "smollm2", "hf_token": "${MY_TOKEN}"}}
    for kind in (langchain.ChatVLLMUncertainty, llama_index.VLLMUncertaintyLLM):
        one = kind.from_config(source)
        assert one.engine_args == {"hf_token": SecretStr(SECRET)}
        assert not [text for text in of_framework(one) if SECRET in text]
    given = (langchain.ChatVLLMUncertainty(model="smollm2", hf_token=SECRET).core, one.core)
    assert UncertaintyModel.from_config(source).backend == given[0].backend == given[1].backend


def test_headers_of_servers_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    given = {"api_key": "${MY_TOKEN}", "headers": {"X-Team": "${MY_TOKEN}"}}
    source = {"generator": {"type": "vllm_server", "base_url": "http://one", **given}}
    assert UncertaintyModel.from_config(source).backend == VLLMServerBackend(**SERVED)
    assert langchain.ChatVLLMUncertainty.from_config(source).backend == VLLMServerBackend(**SERVED)


def test_a_tracer_sees_no_secret():
    seen: list[str] = []

    class Tracer(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, serialized, messages, **kwargs):
            seen.append(repr((serialized, kwargs)))
            raise InterruptedError

    chat = langchain.ChatVLLMUncertainty(model="smollm2", api_key=SECRET, **VLLM)
    with pytest.raises(InterruptedError):
        chat.invoke("hi", config={"callbacks": [Tracer()]})
    assert seen and SECRET not in seen[0]


def test_what_is_set_later_is_a_secret_too():
    chat = langchain.ChatVLLMUncertainty(model="smollm2")
    chat.api_key, chat.engine_args = SECRET, {"hf_token": SECRET}
    again = chat.model_copy(update={"engine_args": VLLM, "api_key": SECRET})
    assert not [text for one in (chat, again) for text in of_framework(one) if SECRET in text]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (langchain.ChatVLLMUncertainty, {"model": "m", "hf_token": SECRET, "n": "x"}),
        (langchain.ChatHybridUncertainty, {"model": "m", "vllm": [VLLM]}),
        (langchain.ChatVLLMUncertainty, {"model": "m", "api_key": {"secret": SECRET}}),
        (langchain.ChatVLLMUncertainty, {"model": ["m"], "vllm_token": SECRET}),
        (langchain.ChatVLLMUncertainty, {"model": "m", "hf_tokn": SECRET}),
        (langchain.ChatHybridUncertainty, {"model": "m", "vllm": VLLM, "huggingface": HF}),
        (langchain.ChatHybridUncertainty, {"model": "m", "vllm": VLLM, "mode": 3}),
        (langchain.ChatHuggingFaceUncertainty, {"model": "/none", **HF}),
        (llama_index.VLLMUncertaintyLLM, {"model": "m", **VLLM, "api_key": SECRET}),
        (llama_index.VLLMUncertaintyLLM, {**VLLM}),
        (VLLMEngineBackend, {"engine": object(), **VLLM}),
        (VLLMEngineBackend, {"model": "m", "api_key": SECRET}),
        (HuggingFaceBackend, {"model": "m", "quantization": "int2", **HF}),
        (hybrid_backend, {"model": "m", "huggingface": HF}),
        (langchain.ChatVLLMUncertainty, {**SERVED, "max_model_len": 64}),
        (langchain.VLLMUncertaintyLLM, {**SERVED, "base_url": f"http://user:{SECRET}@one"}),
        (langchain.VLLMUncertaintyLLM, {**SERVED, "headers": {"X Team": SECRET}}),
        (langchain.VLLMUncertaintyLLM, {**SERVED, "headers": [SECRET]}),
        (llama_index.VLLMUncertaintyLLM, {**SERVED, "api_key": [SECRET]}),
        (VLLMServerBackend, {**SERVED, "headers": SECRET}),
        (Configuration, {"generator": {"type": "vllm_server", "headers": SECRET}}),
        (Configuration, {"generator": {"type": "vllm_server", **SERVED, "api_key": [SECRET]}}),
        (Configuration, {"generator": {"type": "vllm_server", **SERVED, "base_url": [["x"]]}}),
        (
            UncertaintyModel.from_config,
            {"source": {"generator": {"type": "vllm_server", **SERVED, "dtype": "a"}}},
        ),
        (Configuration, {"generator": {"hf_token": SECRET}}),
        (Configuration, {"generator": {"type": "hybrid", "model": "m", "hf_token": SECRET}}),
        (Configuration, {"generator": {"type": SECRET[:3], "hf_token": SECRET}}),
        (Configuration.read, {"source": [{"hf_token": SECRET}]}),
        (Configuration.read, {"source": {"hf_token": SECRET, "generator": {"model": "m"}}}),
    ],
)
def test_no_mistake_has_a_secret_in_its_error(kind, arguments):
    with pytest.raises(errors.UncertaintyError) as raised:
        kind(**arguments)
    assert str(raised.value) and SECRET not in of_error(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        f"generator: {{hf_token: {SECRET}: x}}",
        f"generator:\n  model: [m\n  hf_token: {SECRET}",
        f"generator: {{type: hybrid, model: m, hf_token: {SECRET}}}",
        f"generator: {{model: [m], hf_token: {SECRET}}}",
        f"- {{hf_token: {SECRET}}}",
    ],
)
def test_the_command_line_prints_no_secret(text, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    found = CliRunner().invoke(app, ["ask", "hi", "--config", str(path)])
    assert found.exit_code == 1 and "Error: " in found.output and SECRET not in found.output
    with pytest.raises(errors.ConfigurationError) as raised:
        Configuration.read(path)
    assert SECRET not in of_error(raised.value)


@pytest.mark.parametrize("failure", [OSError, ValueError, RuntimeError, KeyError])
def test_a_start_that_fails_says_no_secret(failure, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    given: list[Mapping[str, object]] = []

    def refuses(arguments: Mapping[str, object]) -> None:
        given.append(arguments)
        raise failure(f"Illegal header value b'Bearer {arguments['hf_token']}'") from KeyError(
            SECRET
        )

    monkeypatch.setattr(client_compat, "is_cpu", lambda: False)
    monkeypatch.setattr(client_compat, "create_engine_config", refuses)
    with (
        VLLMEngineBackend("smollm2", hf_token=f"{SECRET}\n") as backend,
        pytest.raises(errors.UncertaintyError, match=r"Illegal header .*\*{10}") as raised,
    ):
        backend.start()
    assert given[0]["hf_token"] == f"{SECRET}\n"
    assert SECRET not in of_error(raised.value) + caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hf_token": [SECRET]}, "hf_token"),
        ({"hf_token": SECRET, "max_model_len": "many"}, "max_model_len: .* not 'many'"),
        ({"hf_token": SECRET, "dtype": SECRET}, r"dtype.* not '\*{10}'"),
    ],
)
def test_what_vllm_refuses_is_said_without_a_secret(arguments, message):
    with (
        VLLMEngineBackend("smollm2", **arguments) as backend,
        pytest.raises(errors.ConfigurationError, match=message) as raised,
    ):
        backend.start()
    assert SECRET not in of_error(raised.value)


def test_transformers_is_given_the_token_and_its_error_has_none(monkeypatch):
    import transformers

    def refuses(path: str, token: str, **others: object) -> None:
        raise ValueError(f"{path}: {token} is no token")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuses)
    with (
        HuggingFaceBackend("org/name", token=SECRET) as backend,
        pytest.raises(errors.EngineStartError, match=r"org/name: \*+ is no token") as raised,
    ):
        backend.start()
    assert SECRET not in of_error(raised.value)


def test_engines_with_different_secrets_are_not_shared_and_the_answers_are_alike():
    one, other = (VLLMEngineBackend("smollm2", hf_token=token) for token in ("hf_one", "hf_two"))
    assert one != other and one == VLLMEngineBackend("smollm2", hf_token=SecretStr("hf_one"))
    bare, with_token = HuggingFaceBackend("smollm2"), HuggingFaceBackend("smollm2", **HF)
    assert one.fingerprint == other.fingerprint == VLLMEngineBackend("smollm2").fingerprint
    assert bare != with_token


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("api_key", "hf_token", "token", "HF_TOKEN", "use_auth_token")),
        *((name, True) for name in ("x-api-key", "aws_session_token", "client_secret")),
        *((name, False) for name in ("pad_token", "eos_token", "max_tokens", "tokenizer", "key")),
        *((name, False) for name in ("image_token_id", "tokenizer_revision")),
        (3, False),
    ],
)
def test_which_names_are_those_of_secrets(name, is_secret):
    assert is_secret_name(name) is is_secret


def test_what_is_sealed_is_opened_as_it_was():
    plain = {**VLLM, "hf_token": True, "hf_overrides": {"api_key": None, "n": (1, [SECRET])}}
    assert opened(sealed(plain)) == plain
    assert opened(sealed(sealed(VLLM))) == VLLM
    assert without_secrets(VLLM) == {"model_loader_extra_config": {"parts": [{}]}}


def test_an_error_without_a_secret_stays_as_it_is():
    error = errors.EngineStartError("the GPU is full")

    def load() -> None:
        raise error from OSError("16 GiB")

    with pytest.raises(errors.EngineStartError) as raised:
        concealing(VLLM, load)
    assert raised.value is error and isinstance(error.__cause__, OSError)
