"""A method's values token by token, as intervals: what windows over tokens are taken of."""

from __future__ import annotations

from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.records import Floats, TokenTrace


def token_values(trace: TokenTrace, method: Method) -> tuple[Floats, Floats] | None:
    """Return [T] lower and upper ends, equal where exact; None where nothing is known.

    Higher is more uncertain. `trace` has gone through `bounded`.
    """
    if method.needs == "logprob":
        return -trace.logprob, -trace.logprob
    if method.needs == "entropy":
        if trace.entropy_lower is None or trace.entropy_upper is None:
            return None
        return trace.entropy_lower, trace.entropy_upper
    if trace.is_exact and method.exact is not None:
        values = method.sign * method.exact(trace)
        return values, values
    if method.bounds is None or trace.rank is None:
        return None
    ends = [method.sign * end for end in method.bounds(trace)]
    low, high = ends if method.sign == 1 else reversed(ends)
    return low, high
