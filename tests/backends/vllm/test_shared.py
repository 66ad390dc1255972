"""The pass on vLLM's layers against plain transformers, for small models with random weights.

Only vLLM's model is loaded, in this process and without an engine around it.
"""

from functools import partial

import pytest
import torch
import transformers
from safetensors.torch import load
from torch import nn
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory, destroy_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model
from vllm.model_executor.models import registry

from uq_llm_integrations.backends.vllm.worker.shared_model import SharedModel
from uq_llm_integrations.backends.vllm.worker.weight_binding import (
    Binder,
    EngineBlock,
    EnginePart,
    NotShareableError,
)

DEPTH, VOCABULARY, CPU = 3, 97, torch.device("cpu")

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {**SIZES, "head_dim": 32}  # wider than D / H, and a size that vLLM has a kernel for
WINDOW = {**HEADS, "sliding_window": 8}  # shorter than the texts
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

CONFIGS = {
    "llama": partial(transformers.LlamaConfig, **HEADS),
    "qwen2": partial(transformers.Qwen2Config, **SIZES),
    "qwen3": partial(transformers.Qwen3Config, **HEADS),
    "mistral": partial(transformers.MistralConfig, **WINDOW),
    "gemma2": partial(transformers.Gemma2Config, **WINDOW, query_pre_attn_scalar=32),
    "gemma3": partial(transformers.Gemma3TextConfig, **WINDOW, query_pre_attn_scalar=32),
    "phi3": partial(transformers.Phi3Config, **SIZES),
    "gpt2": partial(
        transformers.GPT2Config, vocab_size=VOCABULARY, n_embd=64, n_layer=DEPTH, n_head=2
    ),
    "mixtral": partial(transformers.MixtralConfig, **HEADS, num_local_experts=4),
    "qwen2-moe": partial(
        transformers.Qwen2MoeConfig, **SIZES, **EXPERTS, shared_expert_intermediate_size=32
    ),
    "qwen3-moe": partial(transformers.Qwen3MoeConfig, **HEADS, **EXPERTS),
    "gpt-oss": partial(transformers.GptOssConfig, **WINDOW, num_local_experts=4),
}


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    """What vLLM's worker sets up before it loads a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "empty_cache", lambda: None)
        patch.setattr(registry, "_run_in_subprocess", lambda function: function())  # much faster
        meeting = tmp_path_factory.mktemp("distributed") / "meeting"
        init_distributed_environment(1, 0, f"file://{meeting}", 0, backend="gloo")
        yield
        cleanup_dist_env_and_memory()


def plain_model(config) -> nn.Module:
    """The model in transformers, with weights that are all different from their first values."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def load_both(name: str, folder) -> tuple[nn.Module, nn.Module, SharedModel]:
    """The model in transformers, in vLLM, and shared by the two."""
    plain = plain_model(CONFIGS[name]())
    plain.save_pretrained(folder)
    return plain, *load_shared(folder)


def load_shared(folder, dtype="float32") -> tuple[nn.Module, SharedModel]:
    """A saved model in vLLM, and shared with transformers."""
    config = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=dtype,
        enforce_eager=True,
        max_model_len=64,
    ).create_engine_config()
    with set_current_vllm_config(config):
        destroy_model_parallel()  # each model needs groups of its own kind
        ensure_model_parallel_initialized(1, 1)
        engine = get_model(vllm_config=config)
        return engine, SharedModel(engine, config, CPU)


def texts_of(*lengths: int) -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(VOCABULARY, (length,)).tolist() for length in lengths]


def expected(plain: nn.Module, text: list[int]) -> dict[str, torch.Tensor]:
    """What plain transformers returns for one text by itself."""
    with torch.no_grad():
        output = plain(
            torch.tensor([text]), output_hidden_states=True, output_attentions=True, use_cache=False
        )
    maps = torch.cat(output.attentions)
    logprobs = output.logits[0, :-1].log_softmax(-1)
    return {
        "logprob": logprobs.gather(-1, torch.tensor(text[1:])[:, None])[:, 0],
        "attention_maps": maps,
        "attention_self": maps.diagonal(dim1=-2, dim2=-1),
        "attention_last": maps[:, :, -1],
        **{f"hidden.{n}": states[0] for n, states in enumerate(output.hidden_states)},
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_of_models_is_the_same_on_vllms_layers(name, tmp_path):
    plain, _, shared = load_both(name, tmp_path)
    texts = texts_of(14, 5, 20, 1)
    layers = list(range(DEPTH + 1))
    found = load(shared.inspect(texts, layers, "bands"))
    found |= load(shared.inspect(texts, [], "maps"))
    for i, text in enumerate(texts):
        for field, values in expected(plain, text).items():
            other = found.pop(f"{i}.{field}")
            assert other.dtype == torch.float32 and other.shape == values.shape
            if values.numel():
                scale = values.abs().max()
                assert (other - values).abs().max() <= 1e-4 * scale, (name, i, field)
    assert not found


def test_no_weight_is_there_twice(tmp_path):
    _, engine, shared = load_both("mixtral", tmp_path)
    theirs = {tensor.data_ptr() for tensor in engine.parameters()}
    ours = list(shared.decoder.parameters())
    assert ours and all(tensor.data_ptr() in theirs for tensor in ours)
    kinds = [type(module) for module in shared.decoder.modules()]
    assert kinds.count(EngineBlock) == DEPTH and kinds.count(EnginePart) == 3 * DEPTH


def test_a_fused_layer_is_called_once_for_its_parts(tmp_path):
    _, engine, shared = load_both("llama", tmp_path)
    calls = []
    for layer in (engine.model.layers[0].self_attn.qkv_proj, engine.model.layers[0].mlp.down_proj):
        layer.register_forward_hook(lambda module, *_: calls.append(module))
    shared.inspect(texts_of(7, 3), [], None)
    assert len(calls) == len(set(calls)) == 2


def test_memory_that_runs_out_is_reported_and_nothing_stays_behind(tmp_path, monkeypatch):
    _, engine, shared = load_both("llama", tmp_path)

    def full(*_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine, "compute_logits", full)
        assert shared.inspect(texts_of(4), [1], "bands") == b""
    # torch has no public name for them.
    assert not any(layer._forward_pre_hooks for layer in shared.decoder.modules())
    assert load(shared.inspect(texts_of(4), [1], "bands")).keys() == {
        "0.logprob",
        "0.hidden.1",
        "0.attention_self",
        "0.attention_last",
    }


def test_what_has_no_counterpart_is_named(tmp_path):
    _, engine, _ = load_both("llama", tmp_path)
    config = CONFIGS["llama"]()
    with torch.device("meta"):
        other = transformers.AutoModelForCausalLM.from_config(config)
        other.model.layers[1].adapter = nn.Linear(64, 64)
        wider = transformers.AutoModelForCausalLM.from_config(config)
        wider.model.layers[2].self_attn.o_proj = nn.Linear(128, 65)
    with pytest.raises(NotShareableError, match=r"no layer model\.layers\.1\.adapter"):
        Binder(other, engine).bind(other.model, "model")
    with pytest.raises(NotShareableError, match=r"2\.self_attn\.o_proj gives 64 .* not 65"):
        Binder(wider, engine).bind(wider.model, "model")


@pytest.mark.parametrize(("name", "returns_tuple"), [("gpt-oss", True), ("mixtral", False)])
def test_a_block_returns_a_tuple_where_its_definition_unpacks_one(name, returns_tuple, tmp_path):
    _, _, shared = load_both(name, tmp_path)
    blocks = [one for one in shared.decoder.modules() if isinstance(one, EngineBlock)]
    assert [block.returns_tuple for block in blocks] == [returns_tuple] * DEPTH
    assert not any(block.is_on_trial for block in blocks)


@pytest.mark.parametrize(
    ("use", "returns_tuple"),
    [
        (lambda output: output + 1, False),
        (lambda output: output.view(-1)[None], False),
        (lambda output: output[:, -1], False),
        (lambda output: next(iter(output)), True),
        (lambda output: output[0], True),
    ],
)
def test_a_trial_shows_what_a_definition_takes_from_a_block(use, returns_tuple):
    block = EngineBlock(nn.Identity())
    block.is_on_trial = True
    states = torch.ones(1, 2, 3)
    taken = use(block(states))
    assert block.returns_tuple is returns_tuple
    assert type(taken) is torch.Tensor
    if returns_tuple:
        assert torch.equal(taken, states)
