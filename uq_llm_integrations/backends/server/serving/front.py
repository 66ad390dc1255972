"""What the API server does with a request, from its body to its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from uq_llm_integrations.backends.server.serving.marks import MARK, WIDTH, read_mark
from uq_llm_integrations.backends.server.serving.observed import (
    NOTHING,
    WHOLE_VOCABULARY,
    RequestRows,
    without_columns,
)
from uq_llm_integrations.backends.server.serving.request_fields import (
    Wish,
    read_wish,
    refuse_scoring,
)
from uq_llm_integrations.errors import InvalidRequestError

if TYPE_CHECKING:
    from uq_llm_integrations.backends.server.serving.answer_fields import Answers

ROWS = "uq_llm_rows"
"""The attribute under which vLLM's own objects carry rows from one place to the next."""


# From a body to the engine.


def mark(request: Any) -> str | None:
    """Mark a request by its body's fields, or return why it is refused."""
    from uq_llm_integrations.backends.server.serving.conversations import ALLOWS_SPECIAL_TOKENS

    try:
        wish = _wish(request)
    except InvalidRequestError as error:
        return str(error)
    fields = request.model_extra or {}
    ALLOWS_SPECIAL_TOKENS.set(fields.get("allow_special_tokens") is True)
    own = {name: one for name, one in (request.vllm_xargs or {}).items() if name != MARK}
    request.vllm_xargs = {**own, **(wish.as_extra_args() if wish else {})} or None
    return None


async def keep_tools(request: Any, raw_request: Any) -> None:
    """Keep the tools of a chat as its body has them."""
    from uq_llm_integrations.backends.server.serving.conversations import TOOLS

    tools = None
    if raw_request is not None and getattr(request, "tools", None):
        body = await raw_request.json()  # it has been read before, and is kept
        tools = body.get("tools")
    TOOLS.set(tools)


def _wish(request: Any) -> Wish | None:
    if hasattr(request, "messages"):
        refuse_scoring(request.model_extra)
        return read_wish(request.model_extra)
    echoes = bool(request.echo) and request.logprobs is not None
    return read_wish(request.model_extra, echoes_logprobs=echoes)


def begin(state: Any, request: Any) -> None:
    """Observe a marked request, which has been registered as it was asked for."""
    params = request.sampling_params
    found = read_mark(params.extra_args) if params is not None else None
    if found is None:
        return
    prompt_ids = request.prompt_token_ids or ()
    if found.scored_from > len(prompt_ids):
        raise InvalidRequestError(
            f"uncertainty_from is {found.scored_from}; the prompt has {len(prompt_ids)} tokens"
        )
    rows = RequestRows(found, prompt_ids)
    setattr(state.logprobs_processor, ROWS, rows)
    request.sampling_params = params = copy(params)  # samples of one request share it
    if params.num_logprobs is None:
        params.logprobs = 0
        params.extra_args = {**params.extra_args, MARK: [*found._replace(is_all=True)]}
    if not found.scores_prompt:
        return
    if params.prompt_logprobs == -1:
        rows.why_no_prompt = WHOLE_VOCABULARY
        return
    if params.prompt_logprobs is None:
        params.skip_reading_prefix_cache = False  # up to the first scored token
    params.prompt_logprobs = (params.prompt_logprobs or 0) + WIDTH


# From the engine's outputs to vLLM's.


def take_columns(processor: Any, output: Any) -> None:
    """Keep the rows that an output of the engine has, and leave what was asked for."""
    rows: RequestRows | None = getattr(processor, ROWS, None)
    if (lists := output.new_logprobs) is not None:
        if rows is not None:
            rows.add(lists)
        is_own = processor.num_logprobs is not None
        output.new_logprobs = without_columns(lists) if is_own else None
    if rows is None or not rows.mark.scores_prompt or rows.why_no_prompt:
        return
    if (tensors := output.new_prompt_logprobs_tensors) is not None:
        rows.add_prompt(tensors)
        is_own = processor.num_prompt_logprobs is not None
        output.new_prompt_logprobs_tensors = without_columns(tensors) if is_own else None


def carry_rows(state: Any, output: Any) -> None:
    """Give an output of one sample the rows of its tokens."""
    rows: RequestRows | None = getattr(state.logprobs_processor, ROWS, None)
    if rows is not None:
        is_delta = state.output_kind.name == "DELTA"
        setattr(output, ROWS, rows.taken(output.token_ids, is_delta=is_delta))


def carry_prompt(state: Any, output: Any) -> None:
    """Give an output the rows of its prompt."""
    rows: RequestRows | None = getattr(state.logprobs_processor, ROWS, None)
    if rows is not None and (prompt := rows.scored_prompt()) is not None:
        setattr(output, ROWS, prompt)


def merge_rows(output: Any, later: Any) -> None:
    """Join the rows of outputs whose tokens vLLM joins."""
    known = {one.index: one for one in output.outputs}
    for one in later.outputs:
        first, second = getattr(known.get(one.index), ROWS, None), getattr(one, ROWS, None)
        if first is not None and second is not None:
            setattr(known[one.index], ROWS, first.joined(second))


# From vLLM's outputs to answers.


def answers_of(request: Any, model: str) -> Answers | None:
    """Return what writes a request's answer, None where no statistics are wanted."""
    from uq_llm_integrations.backends.server.serving.answer_fields import Answers
    from uq_llm_integrations.backends.server.serving.counters import metrics_of

    wish = _wish(request)
    if wish is None:
        return None
    hides = getattr(request, "include_reasoning", True) is False
    return Answers(wish, metrics_of(model), hides_tokens=hides)


def see_completions(
    results: Sequence[Any], request: Any, answers: Answers, *, first: int = 0
) -> None:
    """Keep the rows of prompts' outputs, of which `first` is the number of the first prompt."""
    count = request.n or 1
    for place, result in enumerate(results, start=first):
        for output in result.outputs:
            rows = getattr(output, ROWS, None)
            if request.echo and request.max_tokens == 0 and rows is not None:
                rows = NOTHING  # vLLM samples a token that is not in the answer
            answers.see(place * count + output.index, rows, getattr(result, ROWS, None))


def completion_outputs(
    results: AsyncIterator[Any], request: Any, answers: Answers
) -> AsyncGenerator[Any, None]:
    """Yield a stream's outputs, each with the number of its prompt, and keep their rows."""
    from uq_llm_integrations.backends.server.serving.responses import watched

    def see(numbered: tuple[int, Any]) -> None:
        see_completions([numbered[1]], request, answers, first=numbered[0])

    return watched(results, see)


def chat_outputs(
    results: AsyncIterator[Any], answers: Answers, *, is_stream: bool
) -> AsyncGenerator[Any, None]:
    """Yield a chat's outputs, and keep their rows: of a whole answer only those of the last."""
    from uq_llm_integrations.backends.server.serving.responses import watched

    return watched(results, partial(_see_chat, answers, is_stream=is_stream))


def _see_chat(answers: Answers, result: Any, *, is_stream: bool) -> None:
    if not is_stream:
        answers.choices.clear()
    for place, output in enumerate(result.outputs):
        answers.see(output.index if is_stream else place, getattr(output, ROWS, None), None)


def lines_of(lines: AsyncGenerator[str, None], answers: Answers) -> AsyncGenerator[str, None]:
    """Yield a stream's lines with the statistics in them."""
    from uq_llm_integrations.backends.server.serving.responses import with_statistics

    return with_statistics(lines, answers)


def finished(response: Any, answers: Answers) -> Any:
    """Return a response with the statistics in it; an error stays as it is."""
    from uq_llm_integrations.backends.server.serving.responses import add_to_response

    if (choices := getattr(response, "choices", None)) is not None:
        add_to_response(choices, answers)
    return response


# Messages.


async def safely_encoded(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    template: Mapping[str, Any],
    chat_template: str | None,
    prompt: Any,
) -> Any:
    """Return vLLM's rendered prompt with the tokens that the embedded backend would send."""
    from uq_llm_integrations.backends.server.serving import conversations

    codec = conversations.Codec("the server's model", tokenizer)
    if set(prompt) - {"prompt", "prompt_token_ids"}:
        conversations.refuse_names(codec, messages, "beside pictures or other media")
        return prompt
    conversation = conversations.conversation_of(messages, template, chat_template)
    if conversation is None:
        conversations.refuse_names(codec, messages, "with add_generation_prompt=false")
        return prompt
    return {**prompt, "prompt_token_ids": await conversations.encoded(codec, conversation)}
