"""Tokenizers of the families of chat models, tiny ones, with templates as theirs are.

Each is made with the control tokens' own names, or with others: so what a text comes to without
them is known from a tokenizer that never had them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import pytest

pytest.importorskip("transformers")  # a framework alone has no tokenizers to be tried with
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.backends.tiny_tokenizers import BYTES, PIECES, byte_fallback, byte_level

CHATML = (
    "{%- if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}"
    "{{ messages[0].content + '\n\n' }}{% endif %}# Tools\n<tools>"
    "{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n{% endif %}"
    "{%- for message in messages %}{% set content = message.content %}"
    "{%- if message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ content }}\n"
    "</tool_response><|im_end|>\n{%- elif message.role == 'assistant' %}"
    "{%- if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n{{ content }}{% for call in message.tool_calls %}\n<tool_call>\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n"
    "</tool_call>{% endfor %}<|im_end|>\n"
    "{%- else %}{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% if tools %}<|start_header_id|>environment<|end_header_id|>\n\n"
    "{{ tools | tojson(indent=4) }}<|eot_id|>{% endif %}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim }}{% for call in message.tool_calls or [] %}"
    "{{ call | tojson }}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INSTRUCTIONS = (
    "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]"
    "{% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + ' ' }}"
    "{% for call in message.tool_calls or [] %}[TOOL_CALLS]{{ call.function | tojson }}"
    "{% endfor %}{{ eos_token }}{% else %}[INST] {{ message['content'] }} [/INST]"
    "{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim }}"
    "{{ message.tool_calls | tojson if message.tool_calls }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
WORDS = (
    "[CLS]{% if tools %}{{ tools | tojson }}[SEP]{% endif %}{% for message in messages %}"
    "[TURN] {{ message['role'] }} {{ message['content'] }} "
    "{{ message.tool_calls | tojson if message.tool_calls }} [SEP]{% endfor %}[TURN]"
)
ROLES = (
    "{% if tools %}<|tool|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}\n{{ message['content'] }}"
    "{{ message.tool_calls | tojson if message.tool_calls }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BARS = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + (message.tool_calls | tojson if message.tool_calls else '')"
    " + '<｜end▁of▁sentence｜>' }}{% else %}"
    "{{ '<｜User｜>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A kind of tokenizer, its template, and its added tokens with their flags."""

    template: str
    tokens: tuple[AddedToken, ...]
    base: Callable[[Iterable[str]], Tokenizer]
    bos: int | None = None


def special(*names: str, **flags: bool) -> tuple[AddedToken, ...]:
    return tuple(
        AddedToken(one, **{"special": True, "normalized": False, **flags}) for one in names
    )


def plain(*names: str, **flags: bool) -> tuple[AddedToken, ...]:
    return special(*names, special=False, **flags)


def merging_words(names: Iterable[str]) -> Tokenizer:
    """As Llama 3's: a whole word of the vocabulary is a token, whatever the merges are."""
    tokenizer = byte_level()
    tokenizer.model.ignore_merges = True
    return tokenizer


def pieces(names: Iterable[str]) -> Tokenizer:
    """As T5's: the control tokens are pieces of the model, which it finds in plain text, too."""
    known = [("<unk>", 0.0), *((one, 0.0) for one in names)]
    more = [*((one, -9.0) for one in BYTES), *((one, -3.0) for one in PIECES)]
    tokenizer = Tokenizer(models.Unigram([*known, *more], 0, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def lower_words(names: Iterable[str]) -> Tokenizer:
    """As BERT's, in lower case; words are split at spaces alone."""
    letters = "abcdefghijklmnopqrstuvwxyz東京.,!'<>|[]{}\":/_()｜▁-0123456789"
    words = ["[UNK]", *names, "the", "cat", *letters, *(f"##{one}" for one in letters)]
    model = models.WordPiece({one: i for i, one in enumerate(words)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def merged(names: Iterable[str]) -> Tokenizer:
    return byte_level()


def sentence_pieces(names: Iterable[str]) -> Tokenizer:
    tokenizer = byte_fallback()
    tokenizer.pre_tokenizer = None
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


FAMILIES: dict[str, Family] = {
    "ChatML": Family(
        CHATML,
        special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        + plain("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
        + plain("<think>", "</think>", "<|fim_prefix|>"),
        merged,
    ),
    "Llama 3": Family(
        HEADERS,
        special("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        merging_words,
        bos=0,
    ),
    "Llama 2 and Mistral": Family(
        INSTRUCTIONS,
        special("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
        + special("[TOOL_CALLS]"),
        sentence_pieces,
        bos=0,
    ),
    "Gemma and T5": Family(
        TURNS,
        special("<bos>", "</s>", "<start_of_turn>", "<end_of_turn>"),
        pieces,
        bos=0,
    ),
    "word pieces": Family(
        WORDS, special("[CLS]", "[SEP]") + plain("[TURN]", normalized=True), lower_words
    ),
    "Phi and GLM": Family(
        ROLES,
        special("<|endoftext|>", "<|end|>", rstrip=True)
        + plain("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", rstrip=True, lstrip=True),
        merged,
    ),
    "DeepSeek": Family(
        BARS,
        special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
        + plain("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        merged,
        bos=0,
    ),
}


@cache
def family(name: str, *, is_renamed: bool = False) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a family; renamed, its control tokens have names like no other."""
    made = FAMILIES[name]
    names = [one.content for one in made.tokens]
    ours = [_other(i, one) if is_renamed else one for i, one in enumerate(names)]
    tokenizer = made.base(ours)
    for token, own in zip(made.tokens, ours, strict=True):
        flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized}
        tokenizer.add_tokens([AddedToken(own, special=token.special, **flags)])
    known = (
        {} if made.bos is None else {"bos_token": ours[made.bos], "eos_token": ours[made.bos + 1]}
    )
    if name == "word pieces":
        known["unk_token"] = "[UNK]"
    if name == "Gemma and T5":
        known["unk_token"] = "<unk>"
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known)
    wrapped.chat_template = _template(made.template, dict(zip(names, ours, strict=True)))
    return wrapped


def _other(index: int, name: str) -> str:
    return f"⟪{index}⟫"


def _template(source: str, names: dict[str, str]) -> str:
    if "'<|' + message['role'] + '|>'" in source and any(a != b for a, b in names.items()):
        roles = "{'user': '⟪3⟫', 'system': '⟪2⟫', 'assistant': '⟪4⟫', 'tool': '⟪5⟫'}"
        source = source.replace("'<|' + message['role'] + '|>'", f"{roles}[message['role']]")
    for name, other in names.items():
        source = source.replace(name, other)
    return source
