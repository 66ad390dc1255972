"""Every reach of the plugin into vLLM: one function each, called in place of vLLM's own.

All are verified when the plugin is registered, whatever vLLM's version: one that moved ends the
start. Those of the engine are put in place in every process, those of the API server only where
requests come in. Each does nothing for a request that has no mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uq_llm_integrations.backends.server.serving import engine, front
from uq_llm_integrations.backends.server.serving.installation import Hook, Place, hook
from uq_llm_integrations.errors import UncertaintyError

_SAMPLER = "vllm.v1.sample.sampler:Sampler"
_V1_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_OF_RUNNERS = ("model_config", "device")
_V2_RUNNER = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_V2 = "vllm.v1.worker.gpu.sample"
_V2_STATES = f"{_V2}.states:SamplingStates"
_V2_REJECTION = "vllm.v1.worker.gpu.spec_decode.rejection_sampler"
_V2_PROMPTS = f"{_V2}.prompt_logprob:PromptLogprobsWorker"
_CACHE = "vllm.v1.core.kv_cache_manager:KVCacheManager"
_STATE = "vllm.v1.engine.output_processor:RequestState"
_PROCESSOR = "vllm.v1.engine.logprobs:LogprobsProcessor"
_OUTPUT = "vllm.v1.engine:EngineCoreOutput"
_CHAT = "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat"
_COMPLETION = "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"
_PROTOCOL = "vllm.entrypoints.openai"


STEP = engine.Step()
PROMPTS = engine.PromptBatch()


# In the engine: the V1 model runner.


@hook(Place.ENGINE, f"{_SAMPLER}.compute_logprobs(logits)")
def v1_scores(original: Hook, logits: Any) -> Any:
    """Compute no log-probabilities that nobody needs."""
    return engine.scores_of(STEP, original, logits)


@hook(Place.ENGINE, f"{_SAMPLER}.gather_logprobs(logprobs, num_logprobs, token_ids)")
def v1_log_probabilities(original: Hook, logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
    """Put the columns beside the log-probabilities of tokens."""
    return engine.gathered(STEP, original, logprobs, num_logprobs, token_ids)


@hook(Place.ENGINE, f"{_SAMPLER}.gather_specific_token_logprobs(logprobs, sampled)")
def v1_chosen_log_probabilities(original: Hook, self: Any, logprobs: Any, *others: Any) -> Any:
    """Put the columns beside the log-probabilities of tokens that the caller has chosen."""
    found = original(self, logprobs, *others)
    return found and engine.with_wanted(STEP, found, logprobs)


@hook(
    Place.ENGINE,
    f"{_V1_RUNNER}._sample(logits, spec_decode_metadata)",
    f"{_V1_RUNNER}.requests",
    f"{_V1_RUNNER}.input_batch",
    "vllm.v1.worker.gpu_input_batch:InputBatch.req_ids",
    "vllm.v1.worker.gpu_input_batch:CachedRequestState.sampling_params",
)
def v1_samples(original: Hook, self: Any, *arguments: Any, **options: Any) -> Any:
    """Say whose statistics are wanted while a step's tokens are sampled."""
    batch = [self.requests[name].sampling_params for name in self.input_batch.req_ids]
    STEP.samples = engine.wanted_of(batch)
    try:
        return original(self, *arguments, **options)
    finally:
        STEP.samples = engine.NOTHING


@hook(Place.ENGINE, f"{_V1_RUNNER}._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)")
def v1_prompts(original: Hook, self: Any, hidden_states: Any, scheduled: Any) -> Any:
    """Say which prompts' statistics are wanted while their log-probabilities are computed."""
    from uq_llm_integrations.backends.vllm.worker.compat import prompt_parts

    parts = list(prompt_parts(self, scheduled)) if self.num_prompt_logprobs else []
    STEP.prompts = iter([engine.scores_prompt(one.params) for one in parts])
    try:
        return original(self, hidden_states, scheduled)
    finally:
        STEP.prompts = None


@hook(Place.ENGINE, f"{_V2_RUNNER}.load_model", *(f"{_V2_RUNNER}.{name}" for name in _OF_RUNNERS))
@hook(Place.ENGINE, f"{_V1_RUNNER}.load_model", *(f"{_V1_RUNNER}.{name}" for name in _OF_RUNNERS))
@hook(
    Place.ENGINE,
    "vllm.v1.worker.cpu_model_runner:CPUModelRunner.load_model",
    "vllm.config:ModelConfig.get_vocab_size()",
    "vllm.config:ModelConfig.dtype",
)
def warm_up(original: Hook, self: Any, *arguments: Any, **options: Any) -> Any:
    """Compile at the start what the first request would wait for."""
    loaded = original(self, *arguments, **options)
    config = self.model_config
    engine.warm_up(config.get_vocab_size(), config.dtype, self.device)
    return loaded


# In the engine: the V2 model runner.


@hook(Place.ENGINE, f"{_V2_STATES}.add_request(req_idx, sampling_params)")
def v2_slots(original: Hook, self: Any, req_idx: int, sampling_params: Any) -> Any:
    """Remember what is wanted of the request in a slot."""
    vars(self).setdefault("uq_llm_slots", {})[req_idx] = engine.wanted_of([sampling_params])
    return original(self, req_idx, sampling_params)


@hook(Place.ENGINE, f"{_V2_STATES}.max_num_logprobs(idx_mapping_np)")
def v2_samples(original: Hook, self: Any, idx_mapping_np: Any) -> Any:
    """Say whose statistics are wanted of the tokens that are sampled next."""
    STEP.samples = engine.any_wanted(vars(self).get("uq_llm_slots", {}), idx_mapping_np)
    return original(self, idx_mapping_np)


@hook(Place.ENGINE, f"{_V2_REJECTION}:compute_topk_scores(logits, sampled_token_ids)")
@hook(Place.ENGINE, f"{_V2}.sampler:compute_topk_scores(logits, sampled_token_ids)")
def v2_log_probabilities(original: Hook, logits: Any, *arguments: Any, **options: Any) -> Any:
    """Put the columns beside the log-probabilities of sampled tokens."""
    return engine.with_wanted(STEP, original(logits, *arguments, **options), logits)


@hook(Place.ENGINE, f"{_V2_PROMPTS}.add_request(req_id, req_idx, sampling_params)")
def v2_prompt_slots(
    original: Hook, self: Any, req_id: str, req_idx: int, sampling_params: Any
) -> Any:
    """Remember where the columns of the prompt in a slot begin."""
    widths = vars(self).setdefault("uq_llm_widths", {})
    widths[req_idx] = engine.prompt_width(sampling_params)
    return original(self, req_id, req_idx, sampling_params)


@hook(
    Place.ENGINE,
    f"{_V2_PROMPTS}.compute_prompt_logprobs(logits_fn, hidden_states, input_batch)",
    "vllm.v1.worker.gpu.input_batch:InputBatch.idx_mapping_np",
    "vllm.v1.worker.gpu.input_batch:InputBatch.query_start_loc_np",
)
def v2_prompts(
    original: Hook, self: Any, logits_fn: Any, hidden_states: Any, input_batch: Any, *others: Any
) -> Any:
    """Say which prompts' statistics are wanted while their log-probabilities are computed."""
    slots, starts = input_batch.idx_mapping_np.tolist(), input_batch.query_start_loc_np.tolist()
    PROMPTS.begin(vars(self).get("uq_llm_widths", {}), slots, starts)
    try:
        return original(self, logits_fn, hidden_states, input_batch, *others)
    finally:
        PROMPTS.end()


@hook(Place.ENGINE, f"{_V2}.prompt_logprob:compute_topk_scores(logits, sampled_token_ids)")
def v2_prompt_scores(original: Hook, logits: Any, *arguments: Any, **options: Any) -> Any:
    """Compute the columns of a chunk of the prompts."""
    found = original(logits, *arguments, **options)
    PROMPTS.see(found, logits)
    return found


@hook(Place.ENGINE, f"{_V2}.prompt_logprob:compute_prompt_logprobs_with_chunking")
def v2_prompt_chunks(original: Hook, *arguments: Any, **options: Any) -> Any:
    """Put the columns behind the log-probabilities that each prompt's request wants itself."""
    return PROMPTS.written(original(*arguments, **options))


# In the engine: its scheduler.


@hook(
    Place.ENGINE,
    f"{_CACHE}.get_computed_blocks(request)",
    f"{_CACHE}.coordinator",
    "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.find_longest_cache_hit"
    "(block_hashes, max_cache_hit_length)",
    "vllm.v1.request:Request.sampling_params",
)
def prefix_cache(original: Hook, self: Any, request: Any, *arguments: Any, **options: Any) -> Any:
    """Take from the cache only what comes before the first token to be scored."""
    most = engine.most_cached(request.sampling_params)
    if most is None:
        return original(self, request, *arguments, **options)
    find = self.coordinator.find_longest_cache_hit
    self.coordinator.find_longest_cache_hit = engine.limited(find, most)
    try:
        return original(self, request, *arguments, **options)
    finally:
        del self.coordinator.find_longest_cache_hit


# In the API server: from requests to the engine, and back.


@contextmanager
def _answered_with_400() -> Iterator[None]:
    """Raise what this package refuses as what vLLM answers with HTTP 400."""
    from vllm.exceptions import VLLMClientError

    try:
        yield
    except UncertaintyError as error:
        raise VLLMClientError(str(error)) from error


@hook(
    Place.API_SERVER,
    f"{_STATE}.from_new_request(tokenizer, request)",
    f"{_STATE}.logprobs_processor",
    "vllm.v1.engine:EngineCoreRequest.sampling_params",
    "vllm.exceptions:VLLMClientError",
)
def new_requests(original: Hook, *arguments: Any, **options: Any) -> Any:
    """Have the engine compute what a marked request did not ask for by itself."""
    state = original(*arguments, **options)
    with _answered_with_400():
        front.begin(state, options["request"] if "request" in options else arguments[2])
    return state


@hook(
    Place.API_SERVER,
    f"{_PROCESSOR}.update_from_output(output)",
    f"{_PROCESSOR}.num_logprobs",
    f"{_PROCESSOR}.num_prompt_logprobs",
    f"{_OUTPUT}.new_logprobs",
    f"{_OUTPUT}.new_prompt_logprobs_tensors",
)
def engine_outputs(original: Hook, self: Any, output: Any) -> Any:
    """Take the columns off what the engine sends before anything else reads it."""
    front.take_columns(self, output)
    return original(self, output)


@hook(
    Place.API_SERVER,
    f"{_STATE}._new_completion_output(token_ids, finish_reason, stop_reason)",
    f"{_STATE}.output_kind",
    "vllm.outputs:CompletionOutput.token_ids",
)
def sample_outputs(original: Hook, self: Any, *arguments: Any, **options: Any) -> Any:
    """Carry the rows along with the tokens that they are of."""
    output = original(self, *arguments, **options)
    front.carry_rows(self, output)
    return output


@hook(Place.API_SERVER, f"{_STATE}._new_request_output(external_req_id, outputs, finished)")
def request_outputs(original: Hook, self: Any, *arguments: Any, **options: Any) -> Any:
    """Carry the rows of a prompt along."""
    output = original(self, *arguments, **options)
    front.carry_prompt(self, output)
    return output


@hook(Place.API_SERVER, "vllm.outputs:RequestOutput.add(next_output, aggregate)")
def merged_outputs(original: Hook, self: Any, next_output: Any, aggregate: bool) -> Any:
    """Join the rows of outputs that vLLM joins before anybody has read them."""
    if aggregate:
        front.merge_rows(self, next_output)
    return original(self, next_output, aggregate)


# In the API server: the routes.


@hook(
    Place.API_SERVER,
    f"{_COMPLETION}.create_completion(request, raw_request)",
    f"{_COMPLETION}.create_error_response(message)",
    f"{_PROTOCOL}.completion.protocol:CompletionRequest.vllm_xargs",
)
@hook(
    Place.API_SERVER,
    f"{_CHAT}.create_chat_completion(request, raw_request)",
    f"{_CHAT}.create_error_response(message)",
    f"{_PROTOCOL}.chat_completion.protocol:ChatCompletionRequest.vllm_xargs",
)
async def bodies(original: Hook, self: Any, request: Any, raw_request: Any = None) -> Any:
    """Read the plugin's fields of a body, and mark the request."""
    if (refusal := front.mark(request)) is not None:
        return self.create_error_response(refusal)
    await front.keep_tools(request, raw_request)
    return await original(self, request, raw_request)


@hook(
    Place.API_SERVER,
    f"{_CHAT}.chat_completion_full_generator(request, result_generator)",
    f"{_CHAT}.models",
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.model_name()",
)
async def chat_answers(
    original: Hook, self: Any, request: Any, results: Any, *others: Any, **options: Any
) -> Any:
    """Write the statistics into the answers of chats."""
    answers = front.answers_of(request, self.models.model_name())
    if answers is None:
        return await original(self, request, results, *others, **options)
    seen = front.chat_outputs(results, answers, is_stream=False)
    return front.finished(await original(self, request, seen, *others, **options), answers)


@hook(Place.API_SERVER, f"{_CHAT}.chat_completion_stream_generator(request, result_generator)")
def chat_streams(
    original: Hook, self: Any, request: Any, results: Any, *others: Any, **options: Any
) -> Any:
    """Write the statistics into the streams of chats."""
    answers = front.answers_of(request, self.models.model_name())
    if answers is None:
        return original(self, request, results, *others, **options)
    seen = front.chat_outputs(results, answers, is_stream=True)
    return front.lines_of(original(self, request, seen, *others, **options), answers)


@hook(
    Place.API_SERVER,
    f"{_COMPLETION}.request_output_to_completion_response(final_res_batch, request)",
)
def completion_answers(
    original: Hook, self: Any, results: Any, request: Any, *others: Any, **options: Any
) -> Any:
    """Write the statistics into the answers of completions."""
    response = original(self, results, request, *others, **options)
    answers = front.answers_of(request, self.models.model_name())
    if answers is None:
        return response
    front.see_completions(results, request, answers)
    return front.finished(response, answers)


@hook(
    Place.API_SERVER,
    f"{_COMPLETION}.completion_stream_generator(request, engine_inputs, result_generator)",
)
def completion_streams(
    original: Hook, self: Any, request: Any, inputs: Any, results: Any, *others: Any, **options: Any
) -> Any:
    """Write the statistics into the streams of completions."""
    answers = front.answers_of(request, self.models.model_name())
    if answers is None:
        return original(self, request, inputs, results, *others, **options)
    seen = front.completion_outputs(results, request, answers)
    return front.lines_of(original(self, request, inputs, seen, *others, **options), answers)


@hook(
    Place.API_SERVER,
    "vllm.renderers.hf:HfRenderer.render_messages_async(messages, params)",
    "vllm.renderers.hf:HfRenderer.get_tokenizer()",
    "vllm.renderers.params:ChatParams.chat_template",
    "vllm.renderers.params:ChatParams.chat_template_kwargs",
)
async def conversations(original: Hook, self: Any, messages: Any, params: Any) -> Any:
    """Encode messages so that names of control tokens in them are text."""
    conversation, prompt = await original(self, messages, params)
    values, template = params.chat_template_kwargs, params.chat_template
    with _answered_with_400():
        safe = await front.safely_encoded(self.get_tokenizer(), messages, values, template, prompt)
    return conversation, safe
