"""Every reach of the plugin into vLLM, one function each, which puts it in place.

All are verified when the plugin is registered, whatever vLLM's version: one that moved ends the
start. Those of `ENGINE` are put in place in every process, those of `API_SERVER` only where
requests come in. Each does nothing for a request that has no mark.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

from uq_llm_integrations.backends.reaches import Reach, reach, reaches_of
from uq_llm_integrations.backends.server.serving import engine, front
from uq_llm_integrations.errors import EngineStartError

Install = Callable[[], None]

_SAMPLER = "vllm.v1.sample.sampler:Sampler"
_V1_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_V2 = "vllm.v1.worker.gpu.sample"
_V2_STATES = f"{_V2}.states:SamplingStates"
_V2_PROMPTS = f"{_V2}.prompt_logprob:PromptLogprobsWorker"
_CACHE = "vllm.v1.core.kv_cache_manager:KVCacheManager"
_STATE = "vllm.v1.engine.output_processor:RequestState"
_PROCESSOR = "vllm.v1.engine.logprobs:LogprobsProcessor"
_CHAT = "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat"
_COMPLETION = "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function by what `make` makes of it, once."""
    original = inspect.getattr_static(owner, name)
    is_static = isinstance(original, staticmethod | classmethod)
    function = original.__func__ if is_static else original
    if getattr(function, "is_uq_llm", False):
        return
    replaced = functools.wraps(function)(make(function))
    replaced.is_uq_llm = True
    setattr(owner, name, type(original)(replaced) if is_static else replaced)


def _found(target: str) -> Any:
    module, _, path = target.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


# In the engine: the V1 model runner.


@reach(
    f"{_SAMPLER}.gather_logprobs(logprobs, num_logprobs, token_ids)",
    f"{_SAMPLER}.gather_specific_token_logprobs(logprobs, logprob_token_ids, sampled)",
)
def v1_log_probabilities() -> None:
    """Put the columns beside the log-probabilities of tokens."""

    def gather(original: Any) -> Any:
        def gather_logprobs(logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
            return engine.gathered(STEP, original, logprobs, num_logprobs, token_ids)

        return gather_logprobs

    def gather_specific(original: Any) -> Any:
        def gather_specific_token_logprobs(
            self: Any, logprobs: Any, logprob_token_ids: Any, sampled: Any
        ) -> Any:
            found = original(self, logprobs, logprob_token_ids, sampled)
            if found is None or not STEP.samples.is_wanted:
                return found
            has_forbidden = STEP.samples.has_forbidden
            return engine.with_columns(found, logprobs, has_forbidden=has_forbidden)

        return gather_specific_token_logprobs

    _wrap(_found(_SAMPLER), "gather_logprobs", gather)
    _wrap(_found(_SAMPLER), "gather_specific_token_logprobs", gather_specific)


@reach(
    f"{_V1_RUNNER}._sample(logits, spec_decode_metadata)",
    f"{_V1_RUNNER}.requests",
    f"{_V1_RUNNER}.input_batch",
    "vllm.v1.worker.gpu_input_batch:InputBatch.req_ids",
    "vllm.v1.worker.gpu_input_batch:CachedRequestState.sampling_params",
)
def v1_samples() -> None:
    """Say whose statistics are wanted while a step's tokens are sampled."""

    def make(original: Any) -> Any:
        def _sample(self: Any, *arguments: Any, **options: Any) -> Any:
            names = self.input_batch.req_ids
            batch = [self.requests[name].sampling_params for name in names]
            STEP.samples = engine.wanted_of(batch)
            try:
                return original(self, *arguments, **options)
            finally:
                STEP.samples = engine.NOTHING

        return _sample

    _wrap(_found(_V1_RUNNER), "_sample", make)


@reach(f"{_V1_RUNNER}._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)")
def v1_prompts() -> None:
    """Say which prompts' statistics are wanted while their log-probabilities are computed."""
    from uq_llm_integrations.backends.vllm.worker.compat import prompt_parts

    def make(original: Any) -> Any:
        def _get_prompt_logprobs_dict(self: Any, hidden_states: Any, scheduled: Any) -> Any:
            parts = list(prompt_parts(self, scheduled)) if self.num_prompt_logprobs else []
            STEP.prompts = iter([engine.scores_prompt(one.params) for one in parts])
            try:
                return original(self, hidden_states, scheduled)
            finally:
                STEP.prompts = None

        return _get_prompt_logprobs_dict

    _wrap(_found(_V1_RUNNER), "_get_prompt_logprobs_dict", make)


@reach(
    "vllm.v1.worker.cpu_model_runner:CPUModelRunner.load_model",
    f"{_V1_RUNNER}.model_config",
    "vllm.config:ModelConfig.get_vocab_size()",
)
def cpu_warm_up() -> None:
    """Compile at the start what the first request on a CPU would wait for."""

    def make(original: Any) -> Any:
        def load_model(self: Any, *arguments: Any, **options: Any) -> Any:
            loaded = original(self, *arguments, **options)
            engine.warm_up(self.model_config.get_vocab_size())
            return loaded

        return load_model

    _wrap(_found("vllm.v1.worker.cpu_model_runner:CPUModelRunner"), "load_model", make)


# In the engine: the V2 model runner.


@reach(
    f"{_V2_STATES}.add_request(req_idx, sampling_params)",
    f"{_V2_STATES}.max_num_logprobs(idx_mapping_np)",
)
def v2_samples() -> None:
    """Say whose statistics are wanted of the tokens that are sampled next."""

    def add(original: Any) -> Any:
        def add_request(self: Any, req_idx: int, sampling_params: Any) -> Any:
            slots = self.__dict__.setdefault("uq_llm_slots", {})
            slots[req_idx] = engine.wanted_of([sampling_params])
            return original(self, req_idx, sampling_params)

        return add_request

    def most(original: Any) -> Any:
        def max_num_logprobs(self: Any, idx_mapping_np: Any) -> Any:
            slots = self.__dict__.get("uq_llm_slots", {})
            STEP.samples = engine.any_wanted(slots, idx_mapping_np)
            return original(self, idx_mapping_np)

        return max_num_logprobs

    _wrap(_found(_V2_STATES), "add_request", add)
    _wrap(_found(_V2_STATES), "max_num_logprobs", most)


@reach(
    f"{_V2}.logprob:compute_topk_scores(logits, num_logprobs, sampled_token_ids)",
    f"{_V2}.sampler:compute_topk_scores(logits, num_logprobs, sampled_token_ids)",
    "vllm.v1.worker.gpu.spec_decode.rejection_sampler:compute_topk_scores(logits, num_logprobs)",
)
def v2_log_probabilities() -> None:
    """Put the columns beside the log-probabilities of sampled tokens."""

    def make(original: Any) -> Any:
        def compute_topk_scores(logits: Any, *arguments: Any, **options: Any) -> Any:
            found = original(logits, *arguments, **options)
            if not STEP.samples.is_wanted:
                return found
            has_forbidden = STEP.samples.has_forbidden
            return engine.with_columns(found, logits, has_forbidden=has_forbidden)

        return compute_topk_scores

    for module in (f"{_V2}.sampler", "vllm.v1.worker.gpu.spec_decode.rejection_sampler"):
        _wrap(importlib.import_module(module), "compute_topk_scores", make)


@reach(
    f"{_V2}.prompt_logprob:compute_topk_scores(logits, num_logprobs, sampled_token_ids)",
    f"{_V2}.prompt_logprob:compute_prompt_logprobs_with_chunking",
    f"{_V2_PROMPTS}.add_request(req_id, req_idx, sampling_params)",
    f"{_V2_PROMPTS}.compute_prompt_logprobs(logits_fn, hidden_states, input_batch)",
    "vllm.v1.worker.gpu.input_batch:InputBatch.idx_mapping_np",
    "vllm.v1.worker.gpu.input_batch:InputBatch.query_start_loc_np",
)
def v2_prompts() -> None:
    """Put the columns behind the log-probabilities that each prompt's request wants itself."""
    module = importlib.import_module(f"{_V2}.prompt_logprob")

    def add(original: Any) -> Any:
        def add_request(self: Any, req_id: str, req_idx: int, sampling_params: Any) -> Any:
            widths = self.__dict__.setdefault("uq_llm_widths", {})
            widths[req_idx] = engine.prompt_width(sampling_params)
            return original(self, req_id, req_idx, sampling_params)

        return add_request

    def compute(original: Any) -> Any:
        def compute_prompt_logprobs(
            self: Any, logits_fn: Any, hidden_states: Any, input_batch: Any, *others: Any
        ) -> Any:
            PROMPTS.begin(
                self.__dict__.get("uq_llm_widths", {}),
                input_batch.idx_mapping_np.tolist(),
                input_batch.query_start_loc_np.tolist(),
            )
            try:
                return original(self, logits_fn, hidden_states, input_batch, *others)
            finally:
                PROMPTS.end()

        return compute_prompt_logprobs

    def scores(original: Any) -> Any:
        def compute_topk_scores(logits: Any, *arguments: Any, **options: Any) -> Any:
            found = original(logits, *arguments, **options)
            PROMPTS.see(found, logits)
            return found

        return compute_topk_scores

    def chunked(original: Any) -> Any:
        def compute_prompt_logprobs_with_chunking(*arguments: Any, **options: Any) -> Any:
            return PROMPTS.written(original(*arguments, **options))

        return compute_prompt_logprobs_with_chunking

    _wrap(_found(_V2_PROMPTS), "add_request", add)
    _wrap(_found(_V2_PROMPTS), "compute_prompt_logprobs", compute)
    _wrap(module, "compute_topk_scores", scores)
    _wrap(module, "compute_prompt_logprobs_with_chunking", chunked)


# In the engine: its scheduler.


@reach(
    f"{_CACHE}.get_computed_blocks(request)",
    f"{_CACHE}.coordinator",
    "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.find_longest_cache_hit"
    "(block_hashes, max_cache_hit_length)",
    "vllm.v1.request:Request.sampling_params",
)
def prefix_cache() -> None:
    """Take no block from the cache whose last token is the first scored one, or comes later."""

    def make(original: Any) -> Any:
        def get_computed_blocks(self: Any, request: Any, *arguments: Any, **options: Any) -> Any:
            most = engine.most_cached(request.sampling_params)
            if most is None:
                return original(self, request, *arguments, **options)
            find = self.coordinator.find_longest_cache_hit
            self.coordinator.find_longest_cache_hit = engine.limited(find, most)
            try:
                return original(self, request, *arguments, **options)
            finally:
                del self.coordinator.find_longest_cache_hit

        return get_computed_blocks

    _wrap(_found(_CACHE), "get_computed_blocks", make)


# In the API server: from requests to the engine, and back.


@reach(
    f"{_STATE}.from_new_request(tokenizer, request)",
    "vllm.v1.engine:EngineCoreRequest.sampling_params",
    f"{_STATE}.logprobs_processor",
)
def new_requests() -> None:
    """Have the engine compute what a marked request did not ask for by itself."""

    def make(original: Any) -> Any:
        def from_new_request(kind: Any, *arguments: Any, **options: Any) -> Any:
            state = original(kind, *arguments, **options)
            request = options.get("request") or arguments[1]
            front.begin(state, request)
            return state

        return from_new_request

    _wrap(_found(_STATE), "from_new_request", make)


@reach(
    f"{_PROCESSOR}.update_from_output(output)",
    f"{_PROCESSOR}.num_logprobs",
    f"{_PROCESSOR}.num_prompt_logprobs",
    "vllm.v1.engine:EngineCoreOutput.new_logprobs",
    "vllm.v1.engine:EngineCoreOutput.new_prompt_logprobs_tensors",
)
def engine_outputs() -> None:
    """Take the columns off what the engine sends before anything else reads it."""

    def make(original: Any) -> Any:
        def update_from_output(self: Any, output: Any) -> Any:
            front.take_columns(self, output)
            return original(self, output)

        return update_from_output

    _wrap(_found(_PROCESSOR), "update_from_output", make)


@reach(
    f"{_STATE}._new_completion_output(token_ids, finish_reason, stop_reason)",
    f"{_STATE}._new_request_output(external_req_id, outputs, finished)",
    f"{_STATE}.output_kind",
    "vllm.outputs:RequestOutput.add(next_output, aggregate)",
    "vllm.outputs:CompletionOutput.token_ids",
)
def request_outputs() -> None:
    """Carry the rows along with the tokens that they are of."""

    def completion(original: Any) -> Any:
        def _new_completion_output(self: Any, *arguments: Any, **options: Any) -> Any:
            output = original(self, *arguments, **options)
            front.carry_rows(self, output)
            return output

        return _new_completion_output

    def whole(original: Any) -> Any:
        def _new_request_output(self: Any, *arguments: Any, **options: Any) -> Any:
            output = original(self, *arguments, **options)
            front.carry_prompt(self, output)
            return output

        return _new_request_output

    def merge(original: Any) -> Any:
        def add(self: Any, next_output: Any, aggregate: bool) -> Any:
            if aggregate:
                front.merge_rows(self, next_output)
            return original(self, next_output, aggregate)

        return add

    _wrap(_found(_STATE), "_new_completion_output", completion)
    _wrap(_found(_STATE), "_new_request_output", whole)
    _wrap(_found("vllm.outputs:RequestOutput"), "add", merge)


# In the API server: the routes.


@reach(
    f"{_CHAT}.create_chat_completion(request, raw_request)",
    f"{_COMPLETION}.create_completion(request, raw_request)",
    f"{_CHAT}.create_error_response(message)",
    f"{_COMPLETION}.create_error_response(message)",
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.vllm_xargs",
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest.vllm_xargs",
)
def bodies() -> None:
    """Read the plugin's fields of a body, and mark the request."""

    def make(original: Any) -> Any:
        async def create(self: Any, request: Any, raw_request: Any = None) -> Any:
            if (refusal := front.mark(request)) is not None:
                return self.create_error_response(refusal)
            return await original(self, request, raw_request)

        return create

    _wrap(_found(_CHAT), "create_chat_completion", make)
    _wrap(_found(_COMPLETION), "create_completion", make)


@reach(
    f"{_CHAT}.chat_completion_full_generator(request, result_generator)",
    f"{_CHAT}.chat_completion_stream_generator(request, result_generator)",
)
def chat_answers() -> None:
    """Write the statistics into the answers of chats."""

    def full(original: Any) -> Any:
        async def chat_completion_full_generator(
            self: Any, request: Any, result_generator: Any, *others: Any, **options: Any
        ) -> Any:
            answers = front.answers_of(request, self.models.model_name())
            if answers is None:
                return await original(self, request, result_generator, *others, **options)
            outputs = front.chat_outputs(result_generator, answers, is_stream=False)
            response = await original(self, request, outputs, *others, **options)
            return front.finished(response, answers)

        return chat_completion_full_generator

    def stream(original: Any) -> Any:
        def chat_completion_stream_generator(
            self: Any, request: Any, result_generator: Any, *others: Any, **options: Any
        ) -> AsyncGenerator[str, None]:
            answers = front.answers_of(request, self.models.model_name())
            if answers is None:
                lines: Any = original(self, request, result_generator, *others, **options)
                return lines
            outputs = front.chat_outputs(result_generator, answers, is_stream=True)
            return front.lines_of(original(self, request, outputs, *others, **options), answers)

        return chat_completion_stream_generator

    _wrap(_found(_CHAT), "chat_completion_full_generator", full)
    _wrap(_found(_CHAT), "chat_completion_stream_generator", stream)


@reach(
    f"{_COMPLETION}.request_output_to_completion_response(final_res_batch, request)",
    f"{_COMPLETION}.completion_stream_generator(request, engine_inputs, result_generator)",
)
def completion_answers() -> None:
    """Write the statistics into the answers of completions."""

    def full(original: Any) -> Any:
        def request_output_to_completion_response(
            self: Any, final_res_batch: Any, request: Any, *others: Any, **options: Any
        ) -> Any:
            response = original(self, final_res_batch, request, *others, **options)
            answers = front.answers_of(request, self.models.model_name())
            if answers is None:
                return response
            front.see_completions(final_res_batch, request, answers)
            return front.finished(response, answers)

        return request_output_to_completion_response

    def stream(original: Any) -> Any:
        def completion_stream_generator(
            self: Any, request: Any, inputs: Any, results: Any, *others: Any, **options: Any
        ) -> AsyncGenerator[str, None]:
            answers = front.answers_of(request, self.models.model_name())
            if answers is None:
                lines: Any = original(self, request, inputs, results, *others, **options)
                return lines
            outputs = front.completion_outputs(results, request, answers)
            return front.lines_of(
                original(self, request, inputs, outputs, *others, **options), answers
            )

        return completion_stream_generator

    _wrap(_found(_COMPLETION), "request_output_to_completion_response", full)
    _wrap(_found(_COMPLETION), "completion_stream_generator", stream)


@reach(
    "vllm.renderers.hf:HfRenderer.render_messages_async(messages, params)",
    "vllm.renderers.hf:HfRenderer.get_tokenizer()",
    "vllm.renderers.params:ChatParams.chat_template",
    "vllm.renderers.params:ChatParams.chat_template_kwargs",
)
def conversations() -> None:
    """Encode messages so that names of control tokens in them are text."""

    def make(original: Any) -> Any:
        async def render_messages_async(self: Any, messages: Any, params: Any) -> Any:
            conversation, prompt = await original(self, messages, params)
            prompt = await front.safely_encoded(
                self.get_tokenizer(),
                messages,
                params.chat_template_kwargs,
                params.chat_template,
                prompt,
            )
            return conversation, prompt

        return render_messages_async

    _wrap(_found("vllm.renderers.hf:HfRenderer"), "render_messages_async", make)


STEP = engine.Step()
PROMPTS = engine.PromptBatch()

ENGINE: tuple[Install, ...] = (
    v1_log_probabilities,
    v1_samples,
    v1_prompts,
    cpu_warm_up,
    v2_samples,
    v2_log_probabilities,
    v2_prompts,
    prefix_cache,
)
API_SERVER: tuple[Install, ...] = (
    new_requests,
    engine_outputs,
    request_outputs,
    bodies,
    chat_answers,
    completion_answers,
    conversations,
)


def install(hooks: tuple[Install, ...]) -> None:
    """Put hooks in place, once all have been verified.

    Raises EngineStartError, which names the hook and vLLM's version, where one has moved.
    """
    for one in verified():
        one.verify()
    for put_in_place in hooks:
        try:
            put_in_place()
        except (ImportError, AttributeError, TypeError) as error:
            raise EngineStartError(
                f"the hook {put_in_place.__name__} cannot be put in place: {error}"
            ) from error


def verified() -> list[Reach]:
    """Return the reaches of the hooks."""
    return reaches_of("hooks")
