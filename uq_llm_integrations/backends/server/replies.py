"""From choices of a server's answers, and of the chunks of its streams, to tokens and traces.

What is wrong about tokens or text is an EngineError; where only the statistics are wrong, the
answer stays and its trace says so.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import attrgetter
from typing import Any

import numpy as np

from uq_llm_integrations.backends.row_checks import damaged_trace
from uq_llm_integrations.backends.server.contact import VERSION, Facts
from uq_llm_integrations.backends.token_statistics import COLUMNS, column, join_traces, read_rows
from uq_llm_integrations.backends.token_table import TokenTable
from uq_llm_integrations.errors import EngineError, described
from uq_llm_integrations.records import Floats, TokenTrace

Ids = tuple[int, ...]

_NO_LOGPROB = -9999.0
"""What vLLM writes for minus infinity, which JSON does not have."""

_TOKEN = "token_id:"

_READ = [at for at, name in enumerate(COLUMNS) if name != "stopped"]
"""The columns that are of interest here."""


@dataclass(frozen=True)
class Part:
    """What a choice says: tokens that came together, and how it ended, if it did."""

    index: int
    token_ids: Ids
    text: str
    trace: TokenTrace
    finish_reason: str | None
    stop_reason: int | str | None


@dataclass(frozen=True)
class Reader:
    """Reads the choices of one request. `k` is how many log-probabilities it asked for, or None."""

    facts: Facts
    prompt_ids: Ids
    k: int | None
    most_tokens: int | None
    grammar: bool = False

    def parts(self, body: Mapping[str, Any], first: Mapping[int, int]) -> list[Part]:
        """Return what the choices of a body say; `first` has each one's tokens before."""
        choices = body.get("choices")
        if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
            raise EngineError(f"the server gave choices that are no list of objects: {_kind(body)}")
        parts = [self._part(one, first) for one in choices]
        if len(parts) > 1 and len({one.index for one in parts}) < len(parts):
            raise EngineError("the server gave the same choice twice at once")
        return parts

    def _part(self, choice: Mapping[str, Any], first: Mapping[int, int]) -> Part:
        index, text, ids = choice.get("index", 0), choice.get("text"), choice.get("token_ids")
        if type(index) is not int or index not in first:
            raise EngineError(
                f"the server gave a choice {described(index)}, which nobody asked for"
            )
        if not isinstance(text, str):
            raise EngineError(f"the server gave a text of type {type(text).__name__}")
        check_prompt(choice, self.prompt_ids)
        found = self._token_ids(ids, first[index])
        finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
        return Part(
            index,
            found,
            text,
            self._trace(choice, found, first[index]),
            finish if isinstance(finish, str) and finish else None,
            stop if isinstance(stop, str) or type(stop) is int else None,
        )

    def _token_ids(self, ids: object, before: int) -> Ids:
        if ids is None:
            raise EngineError("the server gave no token_ids; it must know return_token_ids")
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise EngineError("the server gave token_ids that are no list of whole numbers")
        if self.most_tokens is not None and before + len(ids) > self.most_tokens:
            raise EngineError(f"the server gave more than the {self.most_tokens} tokens asked for")
        if ids and not 0 <= min(ids) <= max(ids) < self.facts.size:
            raise EngineError(f"the server gave a token beyond the {self.facts.size} there are")
        return tuple(ids)

    def _trace(self, choice: Mapping[str, Any], ids: Ids, first: int) -> TokenTrace:
        def read() -> TokenTrace:
            rows, why = self._rows(choice.get("uncertainty"), ids, first)
            table = self._table(choice.get("logprobs"), ids, rows, why)
            return table.trace(self.facts.size, rows, why, grammar=self.grammar)

        return trace_or_reason(read, self.facts.size)

    def _rows(self, found: object, ids: Ids, first: int) -> tuple[Floats | None, str | None]:
        """Return the exact rows, or None and why there are none."""
        if not self.facts.has_plugin or not self.facts.is_exact or not ids:
            return None, self.facts.why_inexact
        return given_rows(found, ids, first)

    def _table(
        self, logprobs: object, ids: Ids, rows: Floats | None, why: str | None
    ) -> TokenTable:
        if not ids:
            return TokenTable(np.zeros((0, 1)), np.zeros((0, 1), np.int64), np.zeros(0, np.int64))
        if self.k is not None:
            table = top_table(logprobs, ids, self.k, self.facts.size)
            return table if rows is None else with_rows(table, rows)
        if rows is None:
            raise EngineError(why or "there are none")
        return TokenTable.of_rows(rows, ids)


def trace_or_reason(read: Callable[[], TokenTrace], size: int) -> TokenTrace:
    """Return the trace that is read of a server's statistics, or one that says what is wrong."""
    try:
        return read()
    except (EngineError, ValueError, TypeError, AttributeError) as error:
        why = str(error) or type(error).__name__
    except (LookupError, ArithmeticError) as error:  # their texts alone say little
        why = f"{type(error).__name__}: {error}"
    return damaged_trace(size, f"the server's statistics: {why}")


def check_prompt(choice: Mapping[str, Any], prompt_ids: Ids) -> None:
    """Raise EngineError where a choice says that it is of another prompt."""
    found = choice.get("prompt_token_ids")
    if found is not None and found != list(prompt_ids):
        raise EngineError("the server gave an answer to another prompt")


def given_rows(found: object, ids: Ids, first: int) -> tuple[Floats | None, str | None]:
    """Return the rows of the tokens from `first` on, or None and the server's reason."""
    if not isinstance(found, Mapping):
        raise EngineError("there are none")
    start = found.get("first")
    if found.get("version") != VERSION or type(start) is not int or start != first:
        raise EngineError(
            f"they are of version {described(found.get('version'))} from token "
            f"{described(found.get('first'))} on; due were version {VERSION} from {first} on"
        )
    if found.get("exact") is not True:
        return None, str(found.get("reason") or "the server gave no reason")[:600]
    data = found.get("rows")
    if not isinstance(data, str):
        raise EngineError("there are no rows")
    rows = read_rows(base64.b64decode(data, validate=True))
    if len(rows) != len(ids):
        raise EngineError(f"there are {len(rows)} rows for {len(ids)} tokens")
    _check_rows(rows, ids)
    return rows, None


def _check_rows(rows: Floats, ids: Ids) -> None:
    if column(rows, "token").tolist() != list(ids):
        raise EngineError("they belong to other tokens")
    finite = np.isfinite(rows[:, _READ])
    if not finite.all():
        raise EngineError(f"token {int(np.argmin(finite.all(-1)))} has none")


def with_rows(table: TokenTable, rows: Floats) -> TokenTable:
    """Return a table with the exact log-probabilities and ranks of the tokens themselves."""
    table.logprob, table.rank = column(rows, "logprob"), column(rows, "rank").astype(np.int64)
    return table


def top_table(logprobs: object, ids: Ids, k: int, size: int) -> TokenTable:
    """Return the table of a choice's `logprobs`, whose tokens are written as `token_id:...`.

    The rank of a token that is not among the top k is k + 1, the least that it can be.
    """
    if not isinstance(logprobs, Mapping):
        raise EngineError("there are no log-probabilities")
    tokens, own, top = (logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not len(tokens) == len(own) == len(top) == len(ids):
        raise EngineError(f"there are {len(tokens)} log-probabilities for {len(ids)} tokens")
    width = size if k == -1 else min(k, size)
    rows = [
        _top_row(_id(name), logprob, _pairs(others), width)
        for name, logprob, others in zip(tokens, own, top, strict=True)
    ]
    return _table_of(rows, ids)


def prompt_table(found: object, ids: Ids, first: int, k: int, size: int) -> TokenTable:
    """Return the table of the tokens of a prompt from `first` on, of its `prompt_logprobs`."""
    if not isinstance(found, list) or len(found) != len(ids):
        count = len(found) if isinstance(found, list) else "no"
        raise EngineError(f"there are {count} log-probabilities for {len(ids)} tokens")
    width, rows = (size if k == -1 else min(k, size)), []
    for token, row in zip(ids[first:], found[first:], strict=True):
        given = {int(name): one["logprob"] for name, one in row.items()}
        ids_of, logprobs, _ = _top_row(token, given[token], [*given.items()], width)
        rank = row[str(token)].get("rank")
        rows.append((ids_of, logprobs, rank if type(rank) is int and rank > 0 else width + 1))
    return _table_of(rows, ids[first:])


Row = tuple[list[int], list[float], int]
"""A token and the top k, their log-probabilities, and the token's rank."""


def _top_row(own: int, logprob: float, pairs: list[tuple[int, float]], width: int) -> Row:
    others = pairs if len(pairs) <= width else [one for one in pairs if one[0] != own]
    others.sort(key=lambda one: one[1], reverse=True)
    if len(others) != width:
        raise EngineError(f"there are {len(pairs)} of the {width} top log-probabilities")
    names = [token for token, _ in others]
    rank = names.index(own) + 1 if own in names else width + 1
    top = [-math.inf if one <= _NO_LOGPROB else float(one) for _, one in others]
    return [own, *names], [float(logprob), *top], rank


def _table_of(rows: Sequence[Row], ids: Ids) -> TokenTable:
    names = np.array([one for one, _, _ in rows], np.int64)
    if not np.array_equal(names[:, 0], ids):
        raise EngineError("they belong to other tokens")
    ranks = np.array([rank for *_, rank in rows], np.int64)
    return TokenTable(np.array([one for _, one, _ in rows], np.float64), names, ranks)


def _pairs(row: Mapping[str, float]) -> list[tuple[int, float]]:
    return [(_id(name), logprob) for name, logprob in row.items()]


def _id(name: str) -> int:
    if not name.startswith(_TOKEN):
        raise EngineError("they do not name their tokens by ids")
    return int(name[len(_TOKEN) :])


def joined(traces: Sequence[TokenTrace], size: int) -> TokenTrace:
    """Return the trace of all tokens from those of the parts in which they came."""
    full = [one for one in traces if len(one) or one.damage] or list(traces[:1])
    if not full:
        return damaged_trace(size, "the server gave no tokens")
    damaged = next((one for one in full if one.damage), None)
    if damaged is not None:  # it has no tokens, and so would count as nothing
        return damaged
    if len({_fields(one) for one in full}) == 1:
        return join_traces(full)
    return reduce(TokenTrace.joined, full)


_values = attrgetter(*(field.name for field in fields(TokenTrace)))


def _fields(trace: TokenTrace) -> tuple[object, ...]:
    width = 0 if trace.top_ids is None else trace.top_ids.shape[1]
    return (*map(type, _values(trace)), width, trace.why_inexact)


def cached_tokens(body: Mapping[str, Any], most: int) -> int:
    """Return how many of the prompt's tokens came from the server's cache, 0 where it is silent."""
    usage = body.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    found = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return found if type(found) is int and 0 <= found <= most else 0


def _kind(body: Mapping[str, Any]) -> str:
    return f"the answer has {', '.join(map(str, list(body)[:8])) or 'nothing'}"
