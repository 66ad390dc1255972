"""Where a step of a step-wise generation ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Candidate, Request
from uq_llm_integrations.strategies.wishes import check_count


@dataclass(frozen=True)
class Boundary:
    """A step ends behind any of these, whichever comes first.

    `strings` are stop strings of the engine; `pattern` is searched for in the step's text;
    `max_tokens` is the most tokens of a step; `test` says True of a text at whose end a step ends.
    `thinking` has the markers that begin and end a reasoning part, such as ("<think>", "</think>"):
    a step never reaches across one of them.
    """

    strings: tuple[str, ...] = ("\n",)
    pattern: str | None = None
    max_tokens: int | None = None
    test: Callable[[str], bool] | None = None
    thinking: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.strings, str):
            raise ConfigurationError(f"strings is {self.strings!r}; it must be a tuple of strings")
        if not all(isinstance(s, str) and s for s in self.stop_strings):
            raise ConfigurationError("a boundary string is empty; it would end every step at once")
        if self.max_tokens is not None:
            check_count("max_tokens of a step", self.max_tokens)
        if not (self.stop_strings or self.pattern or self.max_tokens or self.test):
            raise ConfigurationError("a boundary needs a string, a pattern, max_tokens or a test")
        if self._regex is not None and self._regex.search("") is not None:
            raise ConfigurationError(f"the pattern {self.pattern!r} matches no text at all")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings and the markers."""
        return (*self.strings, *(self.thinking or ()))

    def request(self, request: Request, prompt_ids: tuple[int, ...], n: int, most: int) -> Request:
        """Return the request for one step of at most `most` tokens."""
        sampling = dict(request.sampling)
        own = sampling.get("stop") or []
        sampling["stop"] = [*([own] if isinstance(own, str) else own), *self.stop_strings]
        sampling["max_tokens"] = min(self.max_tokens or most, most)
        # The text then reaches to the boundary's end, as the tokens do.
        sampling["include_stop_str_in_output"] = True
        until = self._is_reached if self.pattern or self.test else None
        return replace(request, prompt_ids=prompt_ids, n=n, sampling=sampling, until=until)

    def ends(self, candidate: Candidate, most: int) -> bool:
        """Return whether a step ended at a boundary, so that another can follow."""
        if candidate.finish_reason == "length":
            return self.max_tokens is not None and len(candidate.token_ids) < most
        if candidate.finish_reason == "stop":
            return candidate.stop_reason in self.stop_strings
        return candidate.finish_reason == "boundary"

    def _is_reached(self, text: str) -> bool:
        if self._regex is not None and self._regex.search(text):
            return True
        return bool(self.test and self.test(text))

    @cached_property
    def _regex(self) -> re.Pattern[str] | None:
        try:
            return re.compile(self.pattern) if self.pattern else None
        except re.error as error:
            raise ConfigurationError(f"the pattern {self.pattern!r} is wrong: {error}") from error
