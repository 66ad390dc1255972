"""Answers in the terminal: each token coloured by its entropy, and the scores in a table."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from uq_llm_integrations.records import Candidate, Result, Score, Usage
from uq_llm_integrations.report.score_text import score_text

SCALE = ((0.25, "green3"), (0.75, "chartreuse3"), (1.5, "gold3"), (3.0, "dark_orange"))
"""Entropies in nats up to which a token has a colour; above the last it is red."""

_ABOVE = "red3"

_SIGNS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys([*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"),
}
"""Signs for control characters, and for those that turn the direction of a text."""

_ESCAPES = {code: f"\\u{code:04x}" for code in _SIGNS if code >= 0x20}
"""The same as JSON writes them."""


def render(result: Result, texts: Sequence[Sequence[str]]) -> RenderableType:
    """Return all candidates with their scores, and what they cost."""
    parts: list[RenderableType] = []
    for candidate, scores, pieces in zip(result.candidates, result.scores, texts, strict=True):
        parts += [heat_text(candidate, pieces), "", score_table(list(scores.items())), ""]
    return Group(*parts, legend(), usage_line(result.usage))


def heat_text(candidate: Candidate, texts: Sequence[str]) -> Text:
    """Return the answer, each token in the colour of its entropy (of its upper bound if bounded).

    Tokens that the answer leaves out, such as the end of text, are shown dimmed as symbols.
    """
    trace, text, length = candidate.trace, Text(), 0
    entropies = trace.entropy if trace.entropy is not None else trace.entropy_upper
    for i, piece in enumerate(texts):
        colour = colour_of(float(entropies[i])) if entropies is not None else "default"
        is_shown = length < len(candidate.text)
        length += len(piece)
        text.append(shown(piece) if is_shown else "⏎", Style(color=colour, dim=not is_shown))
    return text


def shown(text: str) -> str:
    """Return a text with signs in place of control characters, which a terminal would follow."""
    return text.translate(_SIGNS)


def json_text(data: object) -> str:
    """Return data as JSON whose control characters, which a terminal would follow, are escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    return text.translate(_ESCAPES)  # those below a space, JSON has escaped itself


def colour_of(entropy: float) -> str:
    """Return the colour of an entropy in nats."""
    return next((colour for limit, colour in SCALE if entropy <= limit), _ABOVE)


def score_table(scores: Sequence[tuple[str, Score]]) -> Table:
    """Return a table of scores with their reasons where they have no value."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("method", "score", "note"):
        table.add_column(column, overflow="fold")  # rather than cut
    for name, score in scores:
        cells = (name, score_text(score), score.reason or "")
        table.add_row(*(Text(shown(cell)) for cell in cells))  # no markup, whatever they say
    return table


def legend() -> Text:
    """Return the meaning of the colours."""
    text = Text("entropy at each token, nats: ", "dim")
    for limit, colour in SCALE:
        text.append(f"≤{limit:g} ", colour)
    return text.append(f">{SCALE[-1][0]:g}", _ABOVE).append("  (higher is less sure)", "dim")


def usage_line(usage: Usage) -> Text:
    """Return one line on tokens and time."""
    tokens = usage.generated_tokens or usage.scored_tokens
    verb = "generated" if usage.generated_tokens else "scored"
    line = f"{usage.prompt_tokens} prompt tokens, {tokens} {verb}, {usage.seconds:.2f} s"
    return Text(line, "dim")
