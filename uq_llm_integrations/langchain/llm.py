"""LangChain's completion classes, one for each kind of backend, from one implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import BaseMessage, get_buffer_string
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from uq_llm_integrations.backends.sampling_values import stop_strings
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.chat.reply import Turn
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.faces import HuggingFaceFace, HybridFace, VLLMFace
from uq_llm_integrations.langchain.closed_streams import closed_reporter
from uq_llm_integrations.langchain.messages import generation_chunk, llm_result
from uq_llm_integrations.langchain.saving import SavedFace
from uq_llm_integrations.records import Conversation, Result
from uq_llm_integrations.settings import MaxTokens


class ScoredText(NamedTuple):
    """A text and its `generation_info["uncertainty"]`."""

    text: str
    uncertainty: dict[str, Any]


class UncertaintyLLM(SavedFace, BaseLLM):
    """A completion model that returns with every answer how sure the model was.

    The scores are in `generation_info["uncertainty"]` of each generation, and in the callbacks.
    Sampling parameters of vLLM and all options can be given here and at each call; any other
    argument goes to the backend.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend
        >>> llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris"]))
        >>> llm.invoke_with_scores("Capital of France?").uncertainty["decision"]
        'accepted'
    """

    max_tokens: MaxTokens = 256
    """The most tokens of a sample, None for all that the prompt leaves of the context."""

    refused: ClassVar[frozenset[str]] = frozenset({"logprobs", "reasoning_parser", "tool_parser"})

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.core.identity

    @property
    def _llm_type(self) -> str:
        return f"{self.generator_type}-uncertainty"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.generator_type
        params["ls_model_name"] = self.model_name
        return params

    def invoke_with_scores(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ScoredText:
        """Return the text and its uncertainty from one call; `invoke` returns the text alone."""
        result = self.generate_prompt([self._convert_input(input)], **_of(config), **kwargs)
        return _scored_text(result)

    async def ainvoke_with_scores(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ScoredText:
        """Return the text and its uncertainty from one call."""
        prompts = [self._convert_input(input)]
        return _scored_text(await self.agenerate_prompt(prompts, **_of(config), **kwargs))

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens that the model is given for a prompt, by its own tokenizer."""
        if self.custom_get_token_ids:
            return self.custom_get_token_ids(text)
        return list(self.core.backend.run(self.core.encode_prompt(text)))

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens the model is given for messages, which it gets as one text."""
        if tools:
            raise InvalidRequestError("a completion has no tools; use the chat class")
        return self.get_num_tokens(get_buffer_string(messages)) if messages else 0

    def generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own options bound first, so that caches key on them too."""
        bound, rest = self.bound(kwargs)
        return super(UncertaintyLLM, bound).generate(prompts, *args, **rest)

    async def agenerate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own options bound first, so that caches key on them too."""
        bound, rest = self.bound(kwargs)
        return await super(UncertaintyLLM, bound).agenerate(prompts, *args, **rest)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Return the texts; with `return_exceptions`, a prompt that fails alone has its error."""
        answer = Runnable.batch if return_exceptions else BaseLLM.batch
        return answer(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Return what `batch` does."""
        answer = Runnable.abatch if return_exceptions else BaseLLM.abatch
        return await answer(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return self.core.backend.run(self._answers(prompts, stop, kwargs))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return await self._answers(prompts, stop, kwargs)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        pieces = self._chunks(prompt, stop, kwargs, closed_reporter(run_manager))
        with closing(self.core.backend.iterate(pieces)) as chunks:
            for chunk in chunks:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        pieces = self._chunks(prompt, stop, kwargs, closed_reporter(run_manager))
        async with closed_at_end(pieces) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _answers(
        self, prompts: Sequence[str], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> LLMResult:
        core = self.core.with_options(**kwargs)
        results = await core.agenerate_all(prompts, stop)
        return llm_result(results, [await core.ametadata(one) for one in results], self.model_name)

    async def _chunks(
        self,
        prompt: str,
        stop: list[str] | None,
        kwargs: dict[str, Any],
        on_closed: Callable[[Result], None] | None = None,
    ) -> AsyncGenerator[GenerationChunk, None]:
        bound, rest = self.bound(kwargs)
        core, stops = bound.core.with_options(**rest), stop_strings(stop)
        turn = Turn(stop=stops, prompt=prompt)
        if core.settings.chat_template:
            message = {"role": "user", "content": prompt}
            turn = Turn(Conversation((message,)), stops)
        async with closed_at_end(core.astream(turn, on_closed=on_closed)) as pieces:
            async for piece in pieces:
                yield generation_chunk(piece)


def _of(config: RunnableConfig | None) -> dict[str, Any]:
    names = ("callbacks", "tags", "metadata", "run_name", "run_id")
    return {name: (config or {}).get(name) for name in names}


def _scored_text(result: LLMResult) -> ScoredText:
    generation = result.generations[0][0]
    return ScoredText(generation.text, (generation.generation_info or {})["uncertainty"])


class VLLMUncertaintyLLM(UncertaintyLLM, VLLMFace):
    """A completion model on vLLM.

    Arguments beside those of all completion models go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """


class HuggingFaceUncertaintyLLM(UncertaintyLLM, HuggingFaceFace):
    """A completion model on Hugging Face transformers.

    Arguments beside those of all completion models go to `HuggingFaceBackend`, and from there to
    `from_pretrained`.
    """


class HybridUncertaintyLLM(UncertaintyLLM, HybridFace):
    """A completion model that generates on vLLM and looks inside the model to score.

    `mode` says where activations come from: `shared`, the engine's own weights; `resident`, a
    second copy of the model; `sequential`, a copy that is loaded while the engine sleeps.
    """
