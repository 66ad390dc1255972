"""Hidden states and attention of the real engine, against plain transformers."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from uq_llm_integrations import (
    Activations,
    EmptyPromptError,
    EngineDeadError,
    EngineTimeoutError,
    Inspection,
    InvalidRequestError,
    MethodUnavailableError,
    Request,
    VLLMEngineBackend,
)
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.vllm import inspection as vllm_inspect
from uq_llm_integrations.backends.vllm.process import EngineProcess
from uq_llm_integrations.checkpoints import resolve_model

pytestmark = pytest.mark.engine

LAYERS = (0, 15, -1, "middle")
BANDS, MAPS = Inspection(LAYERS, "bands"), Inspection((), "maps")

TEXTS = (
    "The capital of France is",
    "A text.",
    "Zürich lies in Switzerland, and 東京 in Japan. " * 4,
    "one two three four five six seven eight nine ten",
)


@pytest.fixture(scope="module")
def texts(backend) -> list[tuple[int, ...]]:
    return [backend.run(backend.encode(text)) for text in TEXTS] + [(1,)]


@pytest.fixture(scope="module")
def plain(texts) -> list[Activations]:
    """What the same model returns for each text in transformers, both bands and maps."""
    model = AutoModelForCausalLM.from_pretrained(
        resolve_model("smollm2").path, attn_implementation="eager", dtype=torch.float32
    )
    return [plain_internals(model.eval(), text) for text in texts]


def plain_internals(model: torch.nn.Module, text: tuple[int, ...]) -> Activations:
    with torch.inference_mode():
        output = model(torch.tensor([text]), output_hidden_states=True, output_attentions=True)
    weights = torch.cat(output.attentions).numpy()
    states = [layer[0].numpy() for layer in output.hidden_states]
    logprobs = output.logits[0, :-1].log_softmax(-1)
    return Activations(
        logprobs.gather(-1, torch.tensor(text[1:])[:, None])[:, 0].numpy(),
        dict(zip(LAYERS, (states[0], states[15], states[30], states[15]), strict=True)),
        weights.diagonal(axis1=2, axis2=3),
        weights[:, :, -1],
        weights,
    )


def assert_close(found: np.ndarray | None, expected: np.ndarray | None) -> None:
    assert found is not None and expected is not None
    assert found.dtype == np.float32 and found.shape == expected.shape
    if expected.size:
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def assert_same_bands(found: list[Activations], expected: list[Activations]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.attention_maps is None and one.hidden.keys() == set(LAYERS)
        for layer in LAYERS:
            assert_close(one.hidden[layer], other.hidden[layer])
        assert_close(one.attention_self, other.attention_self)
        assert_close(one.attention_last, other.attention_last)
        assert_close(one.logprob, other.logprob)


def test_hidden_states_and_attention_are_those_of_transformers(backend, plain, texts):
    bands = backend.run(backend.inspect_all(texts, BANDS))
    assert_same_bands(bands, plain)
    maps = backend.run(backend.inspect_all(texts, MAPS))
    for one, other, expected in zip(bands, maps, plain, strict=True):
        assert not other.hidden and other.attention_self is None and other.attention_last is None
        whole = other.attention_maps
        assert_close(whole, expected.attention_maps)
        np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(one.attention_self, whole.diagonal(axis1=2, axis2=3), atol=1e-6)
        np.testing.assert_allclose(one.attention_last, whole[:, :, -1], atol=1e-6)


async def test_the_engine_goes_on_generating_meanwhile(backend, plain, texts):
    sampling = {"temperature": 0, "max_tokens": 24, "ignore_eos": True}
    requests = [Request(text, sampling=sampling) for text in texts]
    alone = await asyncio.gather(*map(backend.generate, requests))
    generating = [asyncio.create_task(backend.generate(request)) for request in requests]
    await asyncio.sleep(0.2)
    rounds = [await backend.inspect_all(texts, BANDS) for _ in range(2)]
    assert not all(task.done() for task in generating)
    beside = await asyncio.gather(*generating)
    assert [one.token_ids for (one,) in beside] == [one.token_ids for (one,) in alone]
    for bands in rounds:
        assert_same_bands(bands, plain)


def test_the_log_probabilities_are_those_that_the_engine_scores(backend, texts):
    for text, one in zip(texts, backend.run(backend.inspect_all(texts, Inspection())), strict=True):
        scored = backend.run(backend.score(text[:1], text[1:]))
        np.testing.assert_allclose(one.logprob, scored.trace.logprob, rtol=0, atol=1e-3)
        assert not one.hidden and one.attention_self is None


async def test_a_batch_that_does_not_fit_into_memory_is_halved(backend, texts, monkeypatch):
    process, sizes = backend.start(), []
    expected = await backend.inspect_all(texts, BANDS)
    call = process.call_worker

    async def call_a_small_device(method, batch, *arguments, **limits):
        sizes.append(len(batch))
        return b"" if len(batch) > 2 else await call(method, batch, *arguments, **limits)

    monkeypatch.setattr(process, "call_worker", call_a_small_device)
    for one, other in zip(await backend.inspect_all(texts, BANDS), expected, strict=True):
        np.testing.assert_allclose(one.hidden[-1], other.hidden[-1], atol=1e-3)
    assert sizes == [5, 2, 2, 1]


@pytest.mark.parametrize("attention", ["bands", "maps"])
async def test_long_texts_pass_in_batches_whose_weights_fit(backend, attention, monkeypatch):
    process, sizes = backend.start(), []
    call = process.call_worker

    async def recorded(method, batch, *arguments, **limits):
        sizes.append([len(text) for text in batch])
        return await call(method, batch, *arguments, **limits)

    monkeypatch.setattr(process, "call_worker", recorded)
    monkeypatch.setattr(vllm_inspect, "WEIGHTS_AT_ONCE", 30 * 9 * 100 * 250)
    texts = [tuple(range(100, 200)), tuple(range(50, 150)), (5,) * 9, (3,) * 30]
    await backend.inspect_all(texts, Inspection((), attention))
    assert sizes == ([[100, 100], [30, 9]] if attention == "maps" else [[100, 100, 30, 9]])


@pytest.mark.parametrize(
    ("text", "inspection", "message"),
    [
        ((1, 2), Inspection((31,)), "there is no layer 31; allowed are -31 to 30"),
        ((1, 2), Inspection((-32,)), "there is no layer -32"),
        ((1, 2), Inspection((), "all"), "allowed are None, 'bands' and 'maps'"),
        ((1,) * 1025, Inspection(), "1025 tokens; at most 1024"),
        ((1, 49152), Inspection(), "no token 49152; allowed are 0 to 49151"),
    ],
)
def test_what_cannot_be_inspected_is_refused(backend, text, inspection, message):
    with pytest.raises(InvalidRequestError, match=message):
        backend.run(backend.inspect_all([text], inspection))


def test_an_empty_text_is_refused(backend):
    with pytest.raises(EmptyPromptError):
        backend.run(backend.inspect_all([(1, 2), ()], BANDS))


def test_no_texts_are_no_internals(backend):
    assert backend.run(backend.inspect_all([], BANDS)) == []


async def test_a_pass_that_differs_from_the_engine_is_refused_with_the_difference(
    backend, monkeypatch
):
    process = backend.start()
    monkeypatch.setattr(process, "sharing", None)
    monkeypatch.setattr(process, "why_not_shared", None)
    for name in ("TOLERANCES", "GPU_TOLERANCES"):
        monkeypatch.setattr(vllm_inspect, name, {"float32": 0.0})
    for _ in range(2):
        with pytest.raises(MethodUnavailableError, match=r"by \d\.?\d*e-\d\d nats on average"):
            await backend.inspect_all([(1, 2)], BANDS)
    assert "other log-probabilities than vLLM" in backend.capabilities.why_no_activations


@pytest.mark.parametrize(
    ("dtype", "quantization", "device", "expected"),
    [
        (torch.float32, None, "cpu", ("float32", 1e-3)),
        (torch.float32, None, "cuda", ("float32", 1e-2)),
        (torch.bfloat16, None, "cpu", ("bfloat16", 0.1)),
        (torch.bfloat16, None, "cuda", ("bfloat16", 0.1)),
        (torch.float32, "compressed-tensors", "cpu", ("compressed-tensors", 0.5)),
    ],
)
def test_what_may_be_rounding_follows_from_what_the_engine_computes_in(
    dtype, quantization, device, expected
):
    config = SimpleNamespace(dtype=dtype, quantization=quantization)
    assert vllm_inspect.tolerance(config, device) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is 2"),
        ({"pipeline_parallel_size": 3}, "pipeline_parallel_size is 3"),
        ({"worker_extension_cls": "a.B"}, "a worker extension of its own"),
    ],
)
async def test_engines_that_never_can_are_refused_before_they_start(arguments, message):
    backend = VLLMEngineBackend("smollm2", **arguments)
    assert message in backend.capabilities.why_no_activations
    with pytest.raises(MethodUnavailableError, match=f"smollm2 cannot be inspected: .*{message}"):
        await backend.inspect_all([(1, 2)], Inspection())


def test_capabilities_say_that_the_model_can_be_inspected(backend):
    assert backend.capabilities.why_no_activations is None
    assert VLLMEngineBackend("smollm2").capabilities.why_no_activations is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_encoder_decoder": True}, "an encoder"),
        ({"is_multimodal_model": True}, "more than text"),
        ({"lora_config": object()}, "LoRA"),
        ({"worker_extension_cls": ""}, "without the worker extension"),
        ({"tensor_parallel_size": 4}, "tensor_parallel_size is 4"),
    ],
)
def test_a_running_engine_is_judged_by_its_configuration(changes, message):
    flags = {
        "is_encoder_decoder": False,
        "is_multimodal_model": False,
        "lora_config": None,
        "worker_extension_cls": vllm_inspect.WORKER_EXTENSION,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        **changes,
    }
    part = SimpleNamespace(**flags)
    config = SimpleNamespace(
        model_config=part, parallel_config=part, lora_config=flags["lora_config"]
    )
    process = SimpleNamespace(why_not_shared=None, llm=SimpleNamespace(vllm_config=config))
    assert message in vllm_inspect.why_no_activations({}, process)


class DyingEngine:
    """Answers nothing, and dies after a moment."""

    errored = False
    output_processor = SimpleNamespace(propagate_error=lambda failure: None)

    async def collective_rpc(self, method: str, args: tuple) -> list:
        return await asyncio.get_running_loop().create_future()

    async def is_sleeping(self) -> bool:
        await asyncio.sleep(0.1)
        raise RuntimeError("gone")


async def test_a_call_of_an_engine_that_dies_is_an_error():
    process = EngineProcess(DyingEngine(), LoopThread(asyncio.get_running_loop()), None)
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(EngineDeadError, match="gone"):
                await process.call_worker("uq_inspect", deadline=1.0)


class BusyEngine:
    """Says nothing while it works, which takes half a second."""

    errored = False
    output_processor = SimpleNamespace(propagate_error=lambda failure: None)

    def __init__(self) -> None:
        self.work = asyncio.get_running_loop().create_task(asyncio.sleep(0.5, b"done"))

    async def collective_rpc(self, method: str, args: tuple) -> list:
        return [await asyncio.shield(self.work)]

    async def is_sleeping(self) -> bool:
        await asyncio.shield(self.work)
        return False


@pytest.mark.parametrize("patience", [1, 20])
async def test_a_batch_that_takes_longer_than_the_deadline_is_waited_for_with_patience(patience):
    process = EngineProcess(BusyEngine(), LoopThread(asyncio.get_running_loop()), None)
    calling = process.call_worker("uq_inspect", deadline=0.1, patience=patience)
    if patience == 1:
        with pytest.raises(EngineTimeoutError, match="no sign of life"):
            await calling
    else:
        assert await calling == b"done"
        assert not process.is_dead
