"""An answer as HTML, each token in the colour of its uncertainty, with words for what colours say.

Colours are of one hue and grow darker, so that they are told apart without seeing colours and in
print; the most uncertain tokens are also underlined. A model's text is text wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import ReferenceType, WeakKeyDictionary, ref

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.score_text import score_text
from uq_llm_integrations.report.token_values import (
    Numbers,
    TokenValues,
    of_candidate,
    of_metadata,
)
from uq_llm_integrations.report.visible_text import safe_html

Quantity = Literal["entropy", "logprob"]
"""What tokens are coloured by: their entropy, or minus their log-probability; both in nats."""

LIMITS = (0.25, 0.75, 1.5, 3.0)
"""Nats up to which a token is of each level; above the last it is of the highest."""

LEVELS = ("sure", "fairly sure", "in doubt", "unsure", "very unsure")
"""The words for the levels."""

SHADES = (
    None,
    ("#fee8c8", "#1a1a1a"),
    ("#fdbb84", "#1a1a1a"),
    ("#c0341d", "#ffffff"),
    ("#7f0000", "#ffffff"),
)
"""The colours of each level's ground and text; all have a contrast of 4.5 to 1 at least."""

_LINES = ("", "", "", ";text-decoration:underline dotted", ";text-decoration:underline")

STYLES = tuple(
    f"background:{shade[0]};color:{shade[1]}{line}" if shade else ""
    for shade, line in zip(SHADES, _LINES, strict=True)
)
"""The declarations of each level in CSS."""

_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7"


@dataclass(frozen=True)
class HeatMap:
    """A fragment of HTML; notebooks show it by themselves."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def heat_map(answer: Any, by: Quantity = "entropy") -> HeatMap:
    """Return an answer with its tokens coloured, and its scores in a table.

    `answer` is a `Result`, `TokenValues`, the metadata of an answer, or what a framework has
    returned: LangChain's message or generation, LlamaIndex's response. Those show their tokens
    where the model has `token_scores=True`, a `Result` while its model is open; otherwise their
    text. Raises InvalidRequestError for anything else.

    Example:
        >>> model = UncertaintyModel(ScriptedBackend(["<b>"]))
        >>> print(heat_map(model.generate("?")).html[:41])
        <div role="figure" aria-label="0 of 3 tok
    """
    if by not in get_args(Quantity):
        raise ConfigurationError(f"by is {described(by)}; allowed are 'entropy' and 'logprob'")
    if isinstance(answer, Result):
        return HeatMap(_of_result(answer, by))
    if isinstance(answer, TokenValues):
        return HeatMap(tokens_html(answer, by))
    return HeatMap(_of_metadata(answer, by))


def tokens_html(values: TokenValues, by: Quantity = "entropy", *, classes: bool = False) -> str:
    """Return the tokens as HTML, with words on what is seen; with `classes`, without styles.

    The classes are `heat` and `uq0` to `uq4`; `LEVELS` has their words and `STYLES` their styles.
    """
    numbers = values.entropy if by == "entropy" else values.surprisal
    if numbers is None:
        numbers = (None,) * len(values.texts)
    name = _name(values, by)
    rows = zip(values.texts, numbers, strict=True)
    tokens = "".join(_token(text, number, name, classes) for text, number in rows)
    style = 'class="heat"' if classes else f'style="{_TEXT}"'
    summary = safe_html(summary_of(values.texts, numbers, name))
    return (
        f'<div role="figure" aria-label="{summary}"><p {style}>{tokens}</p>'
        f"<p>{_legend(name, classes)}</p><p>{summary}</p></div>"
    )


def level_of(number: float) -> int:
    """Return the place of a number of nats in `LEVELS`."""
    return sum(number > limit for limit in LIMITS)


def level_words() -> list[str]:
    """Return the words for each level with the nats that it goes to."""
    tops = [f"to {limit:g}" for limit in LIMITS] + [f"above {LIMITS[-1]:g}"]
    return [f"{word} ({top})" for word, top in zip(LEVELS, tops, strict=True)]


def summary_of(texts: Sequence[str], numbers: Numbers, name: str) -> str:
    """Return a sentence on the tokens, for those who see no colours.

    Example:
        >>> summary_of(("Par", "is"), (1.7, 0.0), "entropy")
        "1 of 2 tokens is unsure or very unsure; the highest entropy is 1.70 nats, at 'Par'."
    """
    known = [
        (number, text) for text, number in zip(texts, numbers, strict=True) if number is not None
    ]
    if not known:
        return f"The {name} of the tokens is unknown."
    count = sum(level_of(number) >= 3 for number, _ in known)
    highest, text = max(known, key=lambda one: one[0])
    verb = "is" if count == 1 else "are"
    return (
        f"{count} of {len(texts)} tokens {verb} unsure or very unsure; the highest {name} is "
        f"{highest:.2f} nats, at {text!r}."
    )


def remember_backend(result: Result, backend: Backend) -> None:
    """Note which backend knows the texts of a result's tokens, for as long as both are there."""
    _backends[result] = ref(backend)


_backends: WeakKeyDictionary[Result, ReferenceType[Backend]] = WeakKeyDictionary()


def _token(text: str, number: float | None, name: str, classes: bool) -> str:
    if not text:
        return ""  # the token after it completes its character
    shown = safe_html(text)
    if number is None:
        return f"<span>{shown}</span>"
    level = level_of(number)
    words = f"{name} {number:.2f} nats, {LEVELS[level]}"
    return f'<span {_look(level, classes)} title="{words}">{shown}</span>'


def _legend(name: str, classes: bool) -> str:
    words = enumerate(level_words())
    parts = (f"<span {_look(level, classes)}>{one}</span>" for level, one in words)
    return f"<small>{name} in nats: {' '.join(parts)}</small>"


def _look(level: int, classes: bool) -> str:
    return f'class="uq{level}"' if classes else f'style="{STYLES[level]}"'


def _name(values: TokenValues, by: Quantity) -> str:
    if by == "logprob":
        return "surprisal"
    return "highest possible entropy" if values.is_bound else "entropy"


def _of_result(result: Result, by: Quantity = "entropy") -> str:
    texts = _texts(result)
    tokens = (
        _plain(result.text)
        if texts is None
        else tokens_html(of_candidate(result.candidate, texts), by)
    )
    rows = [(name, score_text(one), one.reason or "") for name, one in result.scores[0].items()]
    decision = result.decision
    told = [f"{decision.action}{', uncertain' if decision.is_uncertain else ''}"]
    if decision.text is not None:
        told.append(f"it says instead: {decision.text}")
    return tokens + _table(rows) + _plain("; ".join(told))


def _texts(result: Result) -> list[str] | None:
    """Return the texts of the tokens, None where no open backend knows them."""
    found = _backends.get(result)
    backend = None if found is None else found()
    if backend is None:
        return None
    try:
        return backend.run(candidate_texts(backend, result.candidate))
    except Exception:  # it is closed, or busy with the very call that shows this
        return None


def _of_metadata(answer: Any, by: Quantity) -> str:
    metadata = _metadata(answer)
    if metadata is None:
        raise InvalidRequestError(
            f"{described(answer)} has no scores of this package's models; allowed are a Result, "
            "TokenValues, metadata, and answers of LangChain and LlamaIndex"
        )
    values = of_metadata(metadata)
    scores, reasons = metadata.get("scores", {}), metadata.get("reasons", {})
    rows = [
        (str(name), "unknown" if one is None else f"{one:.4f}", str(reasons.get(name, "")))
        for name, one in scores.items()
    ]
    return (_plain(_text(answer)) if values is None else tokens_html(values, by)) + _table(rows)


def _metadata(answer: Any) -> Mapping[str, Any] | None:
    """Return the metadata of an answer, wherever its framework keeps it."""
    if isinstance(answer, Mapping):
        found = answer.get("uncertainty", answer)
        found = found.get("final", found) if isinstance(found, Mapping) else found
        return found if isinstance(found, Mapping) and "scores" in found else None
    for name in ("response_metadata", "generation_info", "additional_kwargs", "metadata"):
        kept = getattr(answer, name, None)
        if isinstance(kept, Mapping) and (found := _metadata(kept)) is not None:
            return found
    return None


def _text(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return str(answer.get("text", ""))
    found = (getattr(answer, name, None) for name in ("text", "content", "response"))
    return next((one for one in found if isinstance(one, str)), "")


def _plain(text: str) -> str:
    return f'<p style="{_TEXT}">{safe_html(text)}</p>'


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{safe_html(name)}</th><td>{safe_html(value)}</td>'
        f"<td>{safe_html(note)}</td></tr>"
        for name, value, note in rows
    )
    return (
        "<table><caption>Scores; higher is more uncertain</caption><thead><tr>"
        '<th scope="col">method</th><th scope="col">score</th><th scope="col">note</th>'
        f"</tr></thead><tbody>{lines}</tbody></table>"
    )


Result.renderer = _of_result
