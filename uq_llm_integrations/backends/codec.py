"""From texts and conversations to tokens and back, the same for every backend."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.content_blocks import Message, plain_messages, text_of
from uq_llm_integrations.backends.control_tokens import ControlTokens, is_role, written
from uq_llm_integrations.backends.data_encoding import data_encoder
from uq_llm_integrations.backends.outside_text import OutsideText, PrivateAlphabet, mapped
from uq_llm_integrations.backends.template_values import check_template_values
from uq_llm_integrations.backends.token_texts import named_texts, text_decoder
from uq_llm_integrations.backends.unicode_text import (
    check_conversation,
    check_unicode,
    checked_text,
)
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described, reason
from uq_llm_integrations.records import Conversation

TOOLS = """You may call functions. Their signatures are in <tools></tools>:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments as JSON in <tool_call></tool_call>:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>"""
"""Describes tools where the chat template does not: the Hermes format."""

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


class TokenizerBackend(Backend):
    """A backend whose tokens are those of a transformers tokenizer."""

    _model: str
    """What the model is called."""

    @abstractmethod
    async def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer."""

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template.

        Names of control tokens in a prompt by itself are these tokens, as the tokenizer has it.
        """
        checked_text(text, "the prompt")
        if chat:
            return await self.encode_chat(Conversation(({"role": "user", "content": text},)))
        tokenizer = await self.tokenizer()
        return tuple(tokenizer.encode(text)) if text else ()

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins.

        One that `continues` ends within its last message. Only what the template writes becomes
        control tokens, unless the conversation allows it: their names in messages, tools and values
        for the template are text.
        """
        check_conversation(conversation)
        check_template_values(conversation.template)
        tokenizer = await self.tokenizer()
        control = ControlTokens.of(tokenizer)
        if not control.template:
            raise ConfigurationError(f"the tokenizer of {self._model} has no chat template")
        messages, tools = plain_messages(conversation.messages), conversation.tools
        if not messages:
            raise InvalidRequestError("there are no messages; a conversation needs at least one")
        if not control.knows_tools:
            messages, tools = with_tool_descriptions(messages, tools), ()
        ready = [_for_template(one, control.template) for one in messages]
        check_unicode(ready, "messages")  # also what JSON in them says
        given = {
            "tools": [dict(one) for one in tools] if tools else None,
            **conversation.template,
        }
        # The template opens a new turn at the end, or leaves the last one open.
        ending = _CONTINUED if conversation.continues else _ANSWERED
        try:
            if not conversation.allow_special_tokens and control.may_come_of(ready, given):
                ids = _ids_of_data(tokenizer, control, ready, given, ending)
                if ids is not None:
                    return ids
            found = tokenizer.apply_chat_template(ready, **given, **ending, return_dict=False)
        except Exception as error:  # templates raise what they like where turns are not theirs
            why = f"{self._model}'s chat template refuses it: {reason(error)}"
            raise InvalidRequestError(why) from error
        return tuple(found)

    async def encode_data(self, text: str, *, continues: bool = False) -> tuple[int, ...]:
        """Return the token ids of a text in which names of control tokens are text."""
        checked_text(text, "the text")
        tokenizer = await self.tokenizer()
        control = ControlTokens.of(tokenizer)
        if text and control.may_come_of(text):
            return data_encoder(tokenizer, control).ids(text, is_whole=not continues)
        return await (self.encode_continuation(text) if continues else self.encode(text))

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        checked_text(text, "the text")
        return tuple((await self.tokenizer()).encode(text, add_special_tokens=False))

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return text_decoder(await self.tokenizer())(list(token_ids))

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds; a special one adds its name."""
        return named_texts(await self.tokenizer(), token_ids)


def _ids_of_data(
    tokenizer: Tokenizer,
    control: ControlTokens,
    messages: Sequence[Message],
    given: Mapping[str, Any],
    ending: Mapping[str, bool],
) -> tuple[int, ...] | None:
    """Return the token ids of a conversation whose texts stay text.

    None where they come to no control token, so that nothing is to be kept from them.
    """
    alphabet = PrivateAlphabet(written([messages, given]) + control.template)
    table = {ord(one): alphabet.of(one) for one in control.characters()}

    def outside(text: str) -> str:
        marked = text.translate(table)
        if control.is_within(text):
            marked = "".join(one if one.isspace() else alphabet.of(one) for one in text)
        return text if marked == text else OutsideText(text, marked)

    own = {"chat_template", *getattr(tokenizer, "special_tokens_map", ())}
    values = {name: one if name in own else mapped(one, outside) for name, one in given.items()}
    turns = [_marked(one, outside) for one in messages]
    prompt = tokenizer.apply_chat_template(turns, **values, **ending, tokenize=False)
    text, places = alphabet.read(str(prompt))
    found, has_others = control.found_in(text, places)
    if not has_others and not control.is_folded_in(text):
        return None
    return data_encoder(tokenizer, control).ids(text, found)


def _marked(message: Message, outside: Callable[[str], str]) -> dict[str, object]:
    """Return a message whose texts, but for its role, are marked as being from outside."""
    return {
        name: value if is_role(name, value) else mapped(value, outside)
        for name, value in message.items()
    }


def knows_tools(template: str) -> bool:
    """Return whether a chat template has a place for tools."""
    return "tools" in template


def with_tool_descriptions(
    messages: Sequence[Message], tools: Sequence[Message]
) -> tuple[Message, ...]:
    """Return messages with tools and calls written out as text, for a template without tools."""
    plain = [_as_plain_text(one) for one in messages]
    if tools:
        described = TOOLS.format(tools="\n".join(_json(one["function"]) for one in tools))
        if plain[0]["role"] == "system":
            first = f"{text_of(plain[0])}\n\n{described}"
            plain[0] = {"role": "system", "content": first}
        else:
            plain.insert(0, {"role": "system", "content": described})
    return tuple(plain)


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
        f"the generator's and the scorer's tokenizers differ on {described(text)}: "
        f"from token {index} on it is {one} and {other}; both must be of the same model"
    )


def _as_plain_text(message: Message) -> Message:
    calls = "\n".join(
        f"<tool_call>\n{_json(_call(one))}\n</tool_call>" for one in message.get("tool_calls") or ()
    )
    content = text_of(message)
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    return {"role": message["role"], "content": "\n".join(p for p in (content, calls) if p)}


_ANSWERED = {"add_generation_prompt": True}
_CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}


def _for_template(message: Message, template: str) -> dict[str, object]:
    """Return a message as templates want it: content is text, arguments are objects."""
    ready = {**message, "content": text_of(message)}
    if message["role"] == "developer" and "developer" not in template:
        ready["role"] = "system"
    if message.get("tool_calls"):
        ready["tool_calls"] = [{**one, "function": _call(one)} for one in message["tool_calls"]]
    return ready


def _call(call: Message) -> dict[str, object]:
    """Return the name and the arguments; those that are no JSON stay as they were written."""
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        parsed = arguments
    return {"name": function.get("name"), "arguments": parsed}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
