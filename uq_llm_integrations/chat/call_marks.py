"""With what the models' calls begin in text, by the names of vLLM's parsers of them."""

from __future__ import annotations

_TAGGED = (
    "hermes", "qwen3_json", "qwen3_xml", "qwen3_coder", "granite4", "glm45", "glm47", "mimo",
    "ling3", "step3p5",
)  # fmt: skip  # a list of names

_MARKS = {
    **dict.fromkeys(_TAGGED, ("<tool_call", "</tool_call", "<function", "<think", "</think")),
    "mistral": ("[TOOL_CALLS]", "[THINK]", "[/THINK]"),
    "llama3_json": ("{", "<|python_tag|>"),
    "llama4_json": ("{", "<|python_tag|>"),
    "xlam": ("<", "[", "{", "```"),
}

_ANY = ("<", "[", "{", "functools")
"""With one of these the calls of every parser begin."""


def call_marks(parser: str) -> tuple[str, ...]:
    """Return texts of which one stands at the beginning of every call that a parser reads.

    Without a list of its own, a parser has those of all.
    """
    return _MARKS.get(parser, _ANY)


TAGGED_THOUGHT = frozenset({
    "deepseek_r1", "glm45", "glm47", "holo2", "hy_v3", "kimi_k2", "ling3", "mimo", "nemotron_v3",
    "qwen3", "step3", "step3p5",
})  # fmt: skip  # a list of names
"""vLLM's parsers of reasoning that stands between `<think>` and `</think>`."""
