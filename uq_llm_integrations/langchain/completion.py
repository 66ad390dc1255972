"""What LangChain's completion classes share, whatever backend they run on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from uq_llm_integrations.backends.codec import GrowingTexts
from uq_llm_integrations.langchain.translate import generation_chunk, llm_result
from uq_llm_integrations.settings import UncertaintySettings
from uq_llm_integrations.strategies.drive import adrive_all


class ScoredText(NamedTuple):
    """A text and what `generation_info["uncertainty"]` says of it."""

    text: str
    uncertainty: dict[str, Any]


class UncertaintyLLM(UncertaintySettings, BaseLLM):
    """A completion model whose every answer tells how sure the model was.

    The scores are in `generation_info["uncertainty"]` of each generation, and in the callbacks.
    Sampling parameters of vLLM can be given here and at each call; any other argument goes to the
    backend.
    """

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: caches use it as their key."""
        return self._settings

    @property
    def _llm_type(self) -> str:
        return f"{self.generator_type}-uncertainty"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.generator_type
        params["ls_model_name"] = self._backend.capabilities.model
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

    def generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own parameters bound first, so that caches key on them too."""
        bound, rest = self._bound(kwargs)
        return super(UncertaintyLLM, bound).generate(prompts, *args, **rest)

    async def agenerate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own parameters bound first, so that caches key on them too."""
        bound, rest = self._bound(kwargs)
        return await super(UncertaintyLLM, bound).agenerate(prompts, *args, **rest)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return self._backend.run(self._answers(prompts, stop, kwargs))

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
        with closing(self._backend.iterate(self._chunks(prompt, stop, kwargs))) as chunks:
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
        async with aclosing(self._chunks(prompt, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _answers(
        self, prompts: Sequence[str], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> LLMResult:
        self._refuse_unknown(kwargs)
        requests = [await self._request(prompt, stop) for prompt in prompts]
        results = await adrive_all(self._deciding, requests, self._backend, self.methods)
        texts = [await self._token_texts(result) for result in results]
        return llm_result(results, texts, self._backend.capabilities.model)

    async def _chunks(
        self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncGenerator[GenerationChunk, None]:
        bound, rest = self._bound(kwargs)
        self._refuse_unknown(rest)
        request = await bound._request(prompt, stop)
        texts = GrowingTexts(self._backend)
        async with aclosing(bound._answer_pieces(request)) as pieces:
            async for piece in pieces:
                tokens = await texts.of(piece.token_ids) if bound.token_scores else None
                yield generation_chunk(piece, tokens)


def _of(config: RunnableConfig | None) -> dict[str, Any]:
    names = ("callbacks", "tags", "metadata", "run_name", "run_id")
    return {name: (config or {}).get(name) for name in names}


def _scored_text(result: LLMResult) -> ScoredText:
    generation = result.generations[0][0]
    return ScoredText(generation.text, (generation.generation_info or {})["uncertainty"])
