"""Small random models of other architectures: with windows, soft caps, experts and states."""

import numpy as np
import pytest
import torch
import transformers

from uq_llm_integrations import HuggingFaceBackend, Inspection, Request, errors

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS = {
    "gemma2": transformers.Gemma2Config(**SIZES, sliding_window=6, query_pre_attn_scalar=8),
    "qwen3_next": transformers.Qwen3NextConfig(
        **SIZES,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "llama": transformers.LlamaConfig(**SIZES),
    "gpt2": transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2),
    "mamba": transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=300),
}
PROMPT = tuple(range(5, 25))


class ByteTokenizer:
    """As much of a tokenizer as generation needs."""

    eos_token_id = 0

    def encode(self, text, **options) -> list[int]:
        return list(text.encode())

    def decode(self, ids, **options) -> str:
        return bytes(min(token, 255) for token in ids).decode("latin-1")


def random_model(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.mul_(3)  # else the distributions are nearly even
    return model


def backend_of(model: transformers.PreTrainedModel) -> HuggingFaceBackend:
    return HuggingFaceBackend(model, tokenizer=ByteTokenizer())


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_of_other_architectures_are_scored_as_they_were_generated(name):
    """Of five samples some end early, so that rows are dropped from the cache."""
    sampling = {"max_tokens": 12, "seed": 3, "stop_token_ids": list(range(60, 120))}
    with backend_of(random_model(name)) as backend:
        candidates = backend.run(backend.generate(Request(PROMPT, n=5, sampling=sampling)))
        lengths = [len(one.token_ids) for one in candidates]
        assert len(set(lengths)) > 1
        scored = backend.run(backend.score_all(PROMPT, [one.token_ids for one in candidates]))
    for generated, given in zip(candidates, scored, strict=True):
        np.testing.assert_allclose(given.trace.logprob, generated.trace.logprob, atol=1e-4)
        np.testing.assert_allclose(given.trace.entropy, generated.trace.entropy, atol=1e-4)


@pytest.mark.parametrize(("name", "layers"), [("gemma2", 3), ("qwen3_next", 1)])
def test_the_layers_that_attend_return_their_weights(name, layers):
    texts = [PROMPT, PROMPT[:7]]
    with backend_of(random_model(name)) as backend:
        found = backend.run(backend.inspect_all(texts, Inspection((1,), "maps")))
    for text, activations in zip(texts, found, strict=True):
        size = len(text)
        assert activations.attention_maps.shape == (layers, 4, size, size)
        np.testing.assert_allclose(activations.attention_maps.sum(-1), 1, atol=1e-5)
        assert activations.hidden[1].shape == (size, 32)


def test_a_model_that_does_not_attend_has_no_attention_weights():
    with (
        backend_of(random_model("mamba")) as backend,
        pytest.raises(errors.MethodUnavailableError, match="none of the model's layers"),
    ):
        backend.run(backend.inspect_all([PROMPT], Inspection(attention="bands")))


def test_a_sample_may_fill_the_context_where_nothing_else_is_said(monkeypatch):
    model = random_model("llama")
    monkeypatch.setattr(model.config, "max_position_embeddings", len(PROMPT) + 30)
    endless = {"ignore_eos": True}
    with backend_of(model) as backend:
        for sampling in ({}, {"max_tokens": None}, {"max_tokens": 1e3}):
            request = Request(PROMPT, sampling=endless | sampling)
            (candidate,) = backend.run(backend.generate(request))
            assert (len(candidate.token_ids), candidate.finish_reason) == (30, "length")


def test_a_model_of_no_known_context_needs_an_end():
    with (
        backend_of(random_model("mamba")) as backend,
        pytest.raises(errors.InvalidRequestError, match="max_tokens is None"),
    ):
        backend.run(backend.generate(Request(PROMPT)))
