"""A strategy run on a backend, blocking."""

from collections.abc import Sequence

from uq_llm_integrations import Backend, MethodOptions, Request, Result, run_strategy
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.strategies.base import Strategy


def run(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions | None = None,
) -> Result:
    return backend.run(run_strategy(strategy, request, backend, methods, options))
