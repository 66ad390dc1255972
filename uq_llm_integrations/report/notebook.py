"""What `%load_ext uq_llm_integrations` does: answers of both frameworks are shown as heat maps."""

from __future__ import annotations

from typing import Any

from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.report.heat_map import heat_map

ANSWERS = (
    ("langchain_core.messages.ai", "AIMessage"),
    ("langchain_core.messages.ai", "AIMessageChunk"),
    ("llama_index.core.base.llms.types", "CompletionResponse"),
    ("llama_index.core.base.llms.types", "ChatResponse"),
    ("llama_index.core.base.response.schema", "Response"),
)
"""The frameworks' answers; naming them here imports neither framework."""


def load_ipython_extension(ipython: Any) -> None:
    """Show answers of this package's models as heat maps; a `Result` is shown without this, too.

    Example:
        %load_ext uq_llm_integrations
    """
    html = ipython.display_formatter.formatters["text/html"]
    for module, name in ANSWERS:
        html.for_type_by_name(module, name, _shown)


def unload_ipython_extension(ipython: Any) -> None:
    """Show answers as IPython does by itself."""
    html = ipython.display_formatter.formatters["text/html"]
    for module, name in ANSWERS:
        html.pop(f"{module}.{name}", None)


def _shown(answer: Any) -> str | None:
    """Return an answer's HTML; None, which shows it as usual, where it has no scores."""
    try:
        return heat_map(answer).html
    except InvalidRequestError:
        return None
