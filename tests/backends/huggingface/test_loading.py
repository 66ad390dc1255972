"""The options by which a model is loaded."""

import os

import pytest
import torch

from uq_llm_integrations import HuggingFaceBackend, errors
from uq_llm_integrations.backends.huggingface import loading


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int2"}, "allowed are None, 'int8' and 'int4'"),
        ({"gpu_memory_utilization": 0.0}, "above 0 and up to 1"),
        ({"gpu_memory_utilization": 1.1}, "above 0 and up to 1"),
        ({"device": "cpu", "device_map": "auto"}, "either device or device_map"),
        ({"devise": "cpu"}, "no argument 'devise'; did you mean 'device'?"),
    ],
)
def test_options_that_can_never_work_are_refused_at_once(arguments, message):
    with pytest.raises(errors.ConfigurationError, match=message):
        HuggingFaceBackend("some/model", **arguments)


def test_a_loaded_model_takes_its_tokenizer_and_nothing_to_load_it_with():
    model = torch.nn.Linear(1, 1)
    for arguments in ({}, {"tokenizer": object(), "dtype": "float32"}):
        with pytest.raises(errors.ConfigurationError, match="a loaded model takes its tokenizer"):
            HuggingFaceBackend(model, **arguments)


def test_quantization_needs_bitsandbytes(monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(errors.MissingDependencyError, match="bitsandbytes"):
        HuggingFaceBackend("some/model", quantization="int8")


def test_what_cannot_be_loaded_is_an_error_of_ours(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(errors.EngineStartError), HuggingFaceBackend(str(tmp_path)) as backend:
        backend.start()
    with pytest.raises(errors.ModelNotFoundError):
        HuggingFaceBackend("/no/such/folder")


def nothing(folder, **options) -> loading.ModelOptions:
    """Options of a model that cannot be loaded, because its folder has no weights."""
    (folder / "config.json").write_text("{}")
    return loading.ModelOptions(name=str(folder), path=str(folder), **options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "expandable_segments:True"),
        ("max_split_size_mb:64", "max_split_size_mb:64,expandable_segments:True"),
        ("expandable_segments:False", "expandable_segments:False"),
    ],
)
def test_expandable_segments_keep_what_is_set(monkeypatch, tmp_path, before, after):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", before)
    with pytest.raises(errors.EngineStartError):
        loading.load_weights(nothing(tmp_path, expandable_segments=True))
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == after


def test_the_share_of_memory_is_set_on_each_cuda_device(monkeypatch, tmp_path, caplog):
    shares, options = {}, nothing(tmp_path, device="cpu", gpu_memory_utilization=0.5)
    with pytest.raises(errors.EngineStartError):
        loading.load_weights(options)
    assert "there is no CUDA device" in caplog.text or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda share, device: shares.update({device: share}),
    )
    with pytest.raises(errors.EngineStartError):
        loading.load_weights(options)
    assert shares == {0: 0.5, 1: 0.5}
