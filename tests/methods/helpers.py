"""What tests of methods share: a judge that looks things up, and scores without a strategy."""

from collections.abc import Sequence

import numpy as np

from uq_llm_integrations import (
    Backend,
    Candidate,
    MethodOptions,
    Request,
    Result,
    ScriptedBackend,
    Usage,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods import combining
from uq_llm_integrations.methods.scoring import score_candidate

NATS = -np.log(0.9)
"""What a scripted token costs."""


class Lookup:
    """Knows what is entailed by what, and how alike texts are, from a table."""

    name = "a table"

    def __init__(self, *same: tuple[str, str]) -> None:
        self.same = set(same)
        self.calls = 0

    async def entailments(self, pairs, question, backend):
        self.calls += 1
        return np.array([[1, 0, 0] if self._are_same(*p) else [0.1, 0.2, 0.7] for p in pairs])

    async def similarities(self, pairs, question, backend):
        self.calls += 1
        return np.array([float(self._are_same(*pair)) for pair in pairs])

    def _are_same(self, first: str, second: str) -> bool:
        return first == second or bool({(first, second), (second, first)} & self.same)


def request(n: int = 1, text: str = "?") -> Request:
    sampling = {"max_tokens": 64, "temperature": 1.0}
    return Request(tuple(text.encode()), n, sampling=sampling, text=text)


async def add_scores(
    candidates: Sequence[Candidate],
    names: Sequence[str],
    backend: Backend,
    prompt: Request | None = None,
    options: MethodOptions | None = None,
) -> Result:
    """Return a result of these candidates, which cost nothing so far."""
    scores = tuple(score_candidate(one, names) for one in candidates)
    bare = Result(tuple(candidates), scores, Usage())
    metered = MeteredBackend(backend)
    return await combining.add_scores(bare, metered, prompt or request(), names, options)


async def scored(script, *names: str, n: int = 1, backend=ScriptedBackend, **options) -> Result:
    """Generate n candidates from a script (or on a backend) and score them."""
    served = backend(script) if script is not None else backend
    candidates = await served.generate(request(n))
    return await add_scores(candidates, names, served, request(n), MethodOptions(**options))


def values(result: Result, name: str) -> list[float | None]:
    return [scores[name].value for scores in result.scores]
