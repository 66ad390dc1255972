"""Which requests get which fault: the same ones again with the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from threading import Lock
from typing import Any, TypeVar

from uq_llm_integrations.errors import ConfigurationError, described, suggestion
from uq_llm_integrations.records import Request

F = TypeVar("F")


def seeded_plan(
    kinds: Mapping[str, Callable[[Random], F]],
    *,
    only: Sequence[str] = (),
    share: float = 1.0,
    seed: int = 0,
) -> Callable[[Request | Mapping[str, Any]], F | None]:
    """Return a plan that gives a share of the requests a fault each, of kinds chosen at random.

    `kinds` is `ENGINE_FAULTS` or `SERVER_FAULTS`, and `only` names those of them that are wanted.
    What a request gets follows from the seed, its prompt and how often that came before, and so not
    from the order in which requests arrive. Raises ConfigurationError for a kind that does not
    exist, and for a share that is not from 0 to 1.

    Example:
        >>> from uq_llm_integrations.testing import ENGINE_FAULTS, seeded_plan
        >>> plan = seeded_plan(ENGINE_FAULTS, only=["dies before", "NaN rows"], seed=1)
        >>> plan(Request((65,))).name
        'NaN rows'
    """
    names = list(only) or list(kinds)
    for name in names:
        if name not in kinds:
            raise ConfigurationError(f"unknown fault {described(name)}{suggestion(name, kinds)}")
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share is {described(share)}; allowed are numbers from 0 to 1")
    seen: Counter[str] = Counter()
    lock = Lock()

    def plan(request: Request | Mapping[str, Any]) -> F | None:
        given = request.prompt_ids if isinstance(request, Request) else request.get("prompt")
        prompt = repr(given)
        with lock:
            seen[prompt] += 1
            random = Random(f"{seed} {prompt} {seen[prompt]}")
        return kinds[random.choice(names)](random) if random.random() < share else None

    return plan


def on_call(number: int, fault: F) -> Callable[[object], F | None]:
    """Return a plan that gives one call a fault, the first being number 1.

    Example:
        >>> from uq_llm_integrations.testing import Fault, on_call
        >>> plan = on_call(2, Fault(status=500))
        >>> [plan({}) is not None for _ in range(3)]
        [False, True, False]
    """
    calls = 0
    lock = Lock()

    def plan(request: object) -> F | None:
        nonlocal calls
        with lock:
            calls += 1
            return fault if calls == number else None

    return plan
