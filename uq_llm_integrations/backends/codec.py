"""From texts and conversations to tokens and back, the same for every backend."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.unicode_text import check_unicode, checked_text
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, reason
from uq_llm_integrations.records import Conversation, TokenTrace

Message = Mapping[str, Any]  # JSON in the shape of OpenAI's API

TOOLS = """You may call functions. Their signatures are in <tools></tools>:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments as JSON in <tool_call></tool_call>:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>"""
"""Describes tools where the chat template does not: the Hermes format."""

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"

# So many tokens of the prompt decide how the first token's text begins, as in vLLM.
_PROMPT_TOKENS = 5

# A token's text depends on those just before it: some tokenizers drop a leading space, and a
# character may span tokens.
_TOKENS_BEFORE = 8


_TEXTS = (
    "The capital of France is Paris.",
    "  def f(x):\n\treturn x**2  # 3.14159",
    "naïve Zürich 東京 Привет 🙂 ﬁne",
    "<|im_start|>user\n<s>[INST] </s><|endoftext|>",
)
"""Texts that tokenizers split differently unless they are the same."""


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of tokens."""

    def apply_chat_template(
        self, conversation: list[dict[str, object]], **options: object
    ) -> Sequence[int]:
        """Return the token ids of a conversation."""


class TokenReader(Protocol):
    """What can say which text tokens add: any backend."""

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""


class TokenizerBackend(Backend):
    """A backend whose tokens are those of a transformers tokenizer."""

    _model: str
    """What the model is called."""

    @abstractmethod
    async def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer."""

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        checked_text(text, "the prompt")
        if chat:
            return await self.encode_chat(Conversation(({"role": "user", "content": text},)))
        tokenizer = await self.tokenizer()
        return tuple(tokenizer.encode(text)) if text else ()

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins.

        One that `continues` ends within its last message.
        """
        check_conversation(conversation)
        tokenizer = await self.tokenizer()
        template = chat_template(tokenizer, self._model)
        messages, tools = conversation.messages, conversation.tools
        if not messages:
            raise InvalidRequestError("there are no messages; a conversation needs at least one")
        if not knows_tools(template):
            messages, tools = with_tool_descriptions(messages, tools), ()
        ready = [_for_template(one) for one in messages]
        check_unicode(ready, "messages")  # also what JSON in them says
        try:
            ids = tokenizer.apply_chat_template(
                ready,
                tools=[dict(one) for one in tools] or None,
                **_ending(conversation),
                return_dict=False,
                **conversation.template,
            )
        except Exception as error:  # templates raise what they like where turns are not theirs
            why = f"{self._model}'s chat template refuses it: {reason(error)}"
            raise InvalidRequestError(why) from error
        return tuple(ids)

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        checked_text(text, "the text")
        return tuple((await self.tokenizer()).encode(text, add_special_tokens=False))

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return (await self.tokenizer()).decode(list(token_ids), skip_special_tokens=True)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return split_text((await self.tokenizer()).decode, token_ids)


def check_conversation(conversation: Conversation) -> None:
    """Raise InvalidRequestError for a text of a conversation that no tokenizer can read."""
    check_unicode(conversation.messages, "messages")
    check_unicode(conversation.tools, "tools")
    check_unicode(conversation.template, "chat_template_kwargs")


def chat_template(tokenizer: object, model: str) -> str:
    """Return the template's source; raise ConfigurationError where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise ConfigurationError(f"the tokenizer of {model} has no chat template")
    return json.dumps(template) if isinstance(template, dict) else str(template)


def knows_tools(template: str) -> bool:
    """Return whether a chat template has a place for tools."""
    return "tools" in template


def with_tool_descriptions(
    messages: Sequence[Message], tools: Sequence[Message]
) -> tuple[Message, ...]:
    """Return messages with tools and calls written out as text, for a template without tools."""
    plain = [_as_plain_text(one) for one in messages]
    if tools:
        described = TOOLS.format(tools="\n".join(json.dumps(one["function"]) for one in tools))
        if plain[0]["role"] == "system":
            first = f"{text_of(plain[0])}\n\n{described}"
            plain[0] = {"role": "system", "content": first}
        else:
            plain.insert(0, {"role": "system", "content": described})
    return tuple(plain)


def text_of(message: Message) -> str:
    """Return the text of a message, whose content may be a list of blocks or None."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    blocks = [one if isinstance(one, dict) else {"type": "text", "text": one} for one in content]
    other = sorted({str(one.get("type")) for one in blocks} - {"text"})
    if other:
        raise InvalidRequestError(f"content of type {other} is not served; allowed is text")
    return "".join(one["text"] for one in blocks)


def split_text(decode: Callable[[list[int]], str], token_ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds; a character belongs to the token that completes it.

    Decoding goes over a short window, since some tokenizers drop the space before the first token
    of what they decode.
    """
    ids, pieces = list(token_ids), []
    start = read = 0
    for end in range(1, len(ids) + 1):
        before, after = decode(ids[start:read]), decode(ids[start:end])
        if after.endswith(_INCOMPLETE) and end < len(ids):
            pieces.append("")
            continue
        pieces.append(after[len(before) :])
        start, read = read, end
    return pieces


class IncrementalText:
    """The text of a sample's tokens as they come, by a `decode` function."""

    def __init__(self, decode: Callable[[list[int]], str], prompt_ids: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt_ids[-_PROMPT_TOKENS:])
        self._start, self._read = 0, len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that a token adds; a character comes with the token that completes it."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        after = self._decode(self._ids[self._start :])
        if after.endswith(_INCOMPLETE) or len(after) <= len(before):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return after[len(before) :]


class GrowingTexts:
    """The text that each token of a stream adds, by a backend."""

    def __init__(self, backend: TokenReader) -> None:
        self._backend = backend
        self._before: tuple[int, ...] = ()

    async def of(self, token_ids: Sequence[int]) -> list[str]:
        """Return the texts of the tokens that came next."""
        ids = (*self._before, *token_ids)
        texts = await self._backend.token_texts(ids)
        known, self._before = len(self._before), ids[-_TOKENS_BEFORE:]
        return texts[known:]


async def top_texts(backend: TokenReader, trace: TokenTrace) -> dict[int, str]:
    """Return the texts of all alternatives that the trace has, by their ids."""
    ids = set(trace.top_ids.ravel().tolist()) if trace.top_ids is not None else set()
    return {one: "".join(await backend.token_texts([one])) for one in ids}


async def check_same_tokens(generator: Backend, scorer: Backend) -> None:
    """Raise ConfigurationError where two backends differ in tokenizer or vocabulary."""
    for text in _TEXTS:
        ours, theirs = await generator.encode(text), await scorer.encode(text)
        if ours != theirs:
            raise ConfigurationError(_difference(text, ours, theirs))
    sizes = [side.capabilities.vocabulary_size for side in (generator, scorer)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ConfigurationError(
            f"the generator has {sizes[0]} tokens and the scorer {sizes[1]}; "
            "both must be of the same vocabulary"
        )


def _difference(text: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    pairs = enumerate(zip(ours, theirs, strict=False))
    index = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    one, other = (list(ids[index : index + 3]) for ids in (ours, theirs))
    return (
        f"the generator's and the scorer's tokenizers differ on {text!r}: "
        f"from token {index} on it is {one} and {other}; both must be of the same model"
    )


def _as_plain_text(message: Message) -> Message:
    calls = "\n".join(
        f"<tool_call>\n{json.dumps(_call(one['function']))}\n</tool_call>"
        for one in message.get("tool_calls") or ()
    )
    content = text_of(message)
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    return {"role": message["role"], "content": "\n".join(p for p in (content, calls) if p)}


def _ending(conversation: Conversation) -> dict[str, bool]:
    """Return whether the template opens a new turn at the end or leaves the last one open."""
    if conversation.continues:
        return {"add_generation_prompt": False, "continue_final_message": True}
    return {"add_generation_prompt": True}


def _for_template(message: Message) -> dict[str, object]:
    """Return a message as templates want it: content is text, arguments are objects."""
    ready = {**message, "content": text_of(message)}
    if message.get("tool_calls"):
        ready["tool_calls"] = [
            {**one, "function": _call(one["function"])} for one in message["tool_calls"]
        ]
    return ready


def _call(function: Message) -> dict[str, object]:
    arguments = function["arguments"]
    parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return {"name": function["name"], "arguments": parsed}
