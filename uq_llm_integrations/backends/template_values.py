"""Values for a chat template: what it may read, and nothing of the function that renders it.

By their names alone transformers takes `max_length` and `padding` for orders to cut a prompt, or to
fill it up to any length, so that a caller could exhaust the memory of a server.
"""

from __future__ import annotations

from collections.abc import Mapping

from uq_llm_integrations.errors import InvalidRequestError

RENDERING = frozenset(
    {
        "add_generation_prompt",
        "continue_final_message",
        "conversation",
        "max_length",
        "padding",
        "processor_kwargs",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    }
)
"""Parameters of `apply_chat_template` that say how it works."""

OWN_TEMPLATE = "chat_template"
"""The value that is a template itself."""


def check_template_values(values: Mapping[str, object]) -> None:
    """Raise InvalidRequestError for a value that would be an order to the rendering function.

    Example:
        >>> check_template_values({"enable_thinking": False})
    """
    if wrong := sorted(RENDERING & values.keys()):
        raise InvalidRequestError(
            f"chat_template_kwargs has {', '.join(wrong)}, which no template reads; allowed are "
            f"values for the chat template, and {OWN_TEMPLATE}"
        )
