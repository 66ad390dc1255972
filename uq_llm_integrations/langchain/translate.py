"""From results to LangChain's generations: pure, no engine needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import (
    TokenTexts,
    token_columns,
    token_metadata,
    token_usage,
    uncertainty_metadata,
)
from uq_llm_integrations.strategies.streaming import AnswerPiece


def llm_result(results: Sequence[Result], texts: Sequence[TokenTexts], model: str) -> LLMResult:
    """Return one list of generations a prompt, the best first, and the token usage of all."""
    generations: list[list[Any]] = [
        [
            Generation(
                text=result.text if i == 0 else candidate.text,
                generation_info=generation_info(result, i, tokens),
            )
            for i, candidate in enumerate(result.candidates)
        ]
        for result, tokens in zip(results, texts, strict=True)
    ]
    return LLMResult(
        generations=generations,
        llm_output={"token_usage": token_usage(results), "model_name": model},
    )


def generation_info(result: Result, index: int, texts: TokenTexts) -> dict[str, Any]:
    """Return why the candidate ended, and its uncertainty."""
    candidate = result.candidates[index]
    uncertainty = uncertainty_metadata(result, index)
    if texts is not None:
        uncertainty["by_token"] = token_metadata(candidate, texts[index])
    return {
        "finish_reason": candidate.finish_reason,
        "stop_reason": candidate.stop_reason,
        "uncertainty": uncertainty,
    }


def generation_chunk(piece: AnswerPiece, texts: Sequence[str] | None) -> GenerationChunk:
    """Return a chunk with its tokens' scores where their texts are given.

    Numbers of the whole answer are in the last one alone: LangChain adds up, or refuses, what two
    chunks both have, but joins lists.
    """
    info: dict[str, Any] = generation_info(piece.result, 0, None) if piece.result else {}
    if texts is not None:
        columns = token_columns(piece.token_ids, piece.trace, texts)
        info["uncertainty"] = info.get("uncertainty", {}) | {"by_token": columns}
    return GenerationChunk(text=piece.text, generation_info=info or None)
