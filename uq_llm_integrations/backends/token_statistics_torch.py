"""The `SUMS` of whole distributions, computed on the device that holds them."""

import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch

from uq_llm_integrations.backends.token_statistics import SUMS

logger = logging.getLogger(__name__)

# A log-probability below this counts as that of a forbidden token.
_FORBIDDEN = -1e4

# Where columns begin in what the kernel for GPUs returns, after the sums and a log-probability.
_TOTAL, _TOKEN = 7, 8

# Elements worked on at a time: what stays in a core's caches on the CPU, 64 MiB on other devices.
_CHUNK = {"cpu": 1 << 20}
_CHUNK_ELSEWHERE = 1 << 24

_BLOCK = 512


def has_compiler() -> bool:
    """Return whether torch can compile for the CPU on this machine."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


@cache
def _one_kernel() -> Callable[..., torch.Tensor] | None:
    """Return what computes rows on a GPU, None where Triton is missing or cannot compile."""
    try:
        from uq_llm_integrations.backends.token_statistics_triton import row_values

        row_values(torch.zeros(1, 16, device="cuda"), None)
    except Exception as error:  # it needs a C compiler, Python's headers and a GPU that it knows
        logger.warning("statistics are slower, since Triton compiles nothing here: %s", error)
        return None
    return row_values


class RowStatistics(NamedTuple):
    """What is summed over rows of logits."""

    sums: torch.Tensor
    """The sums named in `SUMS`, float64 [rows, len(SUMS)]."""
    total: torch.Tensor
    """The log of the sum of exp(logit), float64 [rows]: log-probabilities are logits less this."""


def row_statistics(logits: torch.Tensor, *, has_forbidden: bool = False) -> RowStatistics:
    """Return the statistics of logits, or of log-probabilities, [rows, vocabulary].

    `has_forbidden` says that a grammar has set some of them to -inf.
    """
    if _compiled and _is_for_one_loop(logits, has_forbidden):
        return RowStatistics(*_compiled(_unmarked(logits)))
    if (values := _in_one_kernel(logits, None, has_forbidden)) is not None:
        return RowStatistics(values[:, : len(SUMS)], values[:, _TOTAL])
    rows_at_once = max(1, _CHUNK.get(logits.device.type, _CHUNK_ELSEWHERE) // logits.shape[-1])
    parts = [_in_place(chunk.float(), has_forbidden) for chunk in logits.split(rows_at_once)]
    return RowStatistics(*map(torch.cat, zip(*parts, strict=True)))


def token_statistics(
    logits: torch.Tensor, total: torch.Tensor, token_ids: torch.Tensor
) -> torch.Tensor:
    """Return id, log-probability and rank of one token of each row, float64 [rows, 3].

    `total` is that of the `RowStatistics`; the rank counts the logits that are no lower.
    """
    if _compiled_find and logits.is_cpu and logits.is_contiguous():
        found: torch.Tensor = _compiled_find(_unmarked(logits), total, token_ids)
        return found
    if (values := _in_one_kernel(logits, token_ids, False)) is not None:
        return values[:, _TOKEN:]  # computing the total once more costs next to nothing there
    return _find(logits, total, token_ids)


def statistics_and_tokens(
    logits: torch.Tensor, token_ids: torch.Tensor, *, has_forbidden: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `SUMS` and one token's log-probability, float64 [rows, 7], and its rank, [rows].

    It is `row_statistics` and `token_statistics` at once.
    """
    if _compiled_both and _is_for_one_loop(logits, has_forbidden):
        values, ranks = _compiled_both(_unmarked(logits), token_ids)
        return values, ranks
    if (values := _in_one_kernel(logits, token_ids, has_forbidden)) is not None:
        return values[:, :_TOTAL], values[:, -1].long()
    return _both(row_statistics(logits, has_forbidden=has_forbidden), logits, token_ids)


def warm_up(vocabulary_size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Compile what an engine's steps will need, for one row and for any number.

    The logits of prompts are of the model's own `dtype`.
    """
    with torch.inference_mode():  # as the steps are: outside, torch would compile another version
        for rows in (1, 2):
            row_statistics(torch.zeros(rows, vocabulary_size, dtype=dtype, device=device))
            logits = torch.zeros(rows, vocabulary_size, device=device)
            _, total = row_statistics(logits)
            token_statistics(logits, total, torch.zeros_like(total, dtype=torch.long))


def warm_up_both(vocabulary_size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Compile `statistics_and_tokens` of logits, and `row_statistics` of log-probabilities."""
    with torch.inference_mode():
        for rows in (1, 2):
            row_statistics(torch.zeros(rows, vocabulary_size, device=device))
            logits = torch.zeros(rows, vocabulary_size, dtype=dtype, device=device)
            statistics_and_tokens(logits, torch.zeros(rows, dtype=torch.long, device=device))


def _in_one_kernel(
    logits: torch.Tensor, token_ids: torch.Tensor | None, has_forbidden: bool
) -> torch.Tensor | None:
    """Return the `row_values` of logits on a GPU, None where they must be computed otherwise."""
    if not logits.is_cuda or logits.stride(-1) != 1 or not (row_values := _one_kernel()):
        return None
    return row_values(logits, token_ids, least=_FORBIDDEN if has_forbidden else -math.inf)


def _is_for_one_loop(logits: torch.Tensor, has_forbidden: bool) -> bool:
    return logits.is_cpu and not has_forbidden and logits.shape[-1] >= _BLOCK


def _unmarked(logits: torch.Tensor) -> torch.Tensor:
    """Return logits without the marks that others have put on them for their own compiled code.

    vLLM marks the number of rows as one that the compiler must not know; it would compile ours
    once more, for a single core.
    """
    return logits.detach()


def _in_place(logits: torch.Tensor, has_forbidden: bool) -> RowStatistics:
    maximum = logits.amax(-1, keepdim=True)
    logs = logits - maximum
    if has_forbidden:
        allowed = logs > _FORBIDDEN
        support = allowed.sum(-1, dtype=torch.float64)
        plain = _total(torch.where(allowed, logs, 0.0))
        logs.clamp_(min=_FORBIDDEN)
    else:
        plain = _total(logs)
        support = torch.full_like(plain, logs.shape[-1])
    powers = (logs * 0.25).exp_()  # all that follows happens in this one piece of memory
    fourth_root = _total(powers)
    root = _total(powers.square_())
    mass = _total(powers.square_())
    first = _total(powers.mul_(logs))
    second = _total(powers.mul_(logs))
    sums = torch.stack([mass, first, second, plain, root, fourth_root])
    return _normalized(sums, support, maximum)


def _in_one_loop(logits: torch.Tensor) -> RowStatistics:
    """Return the same in terms that the compiler makes one loop of, storing none of them.

    It would store what `exp` gives and read it again, but not what `exp2` gives.
    """
    logits = logits.float()
    maximum = logits.amax(-1, keepdim=True)
    logs = logits - maximum
    fourth_root = (logs * (0.25 * math.log2(math.e))).exp2()
    root = fourth_root.square()
    mass = root.square()
    first = mass * logs
    sums = _totals([mass, first, first * logs, logs, root, fourth_root])
    return _normalized(sums, torch.full_like(sums[0], logs.shape[-1]), maximum)


def _normalized(sums: torch.Tensor, support: torch.Tensor, maximum: torch.Tensor) -> RowStatistics:
    """Return the sums over log-probabilities, without reading them.

    Given are those of e**z, z e**z, z**2 e**z, z, e**(z/2) and e**(z/4), where z = logit - maximum.
    """
    mass, first, second, plain, root, fourth_root = sums
    log_mass, mean, square = mass.log(), first / mass, second / mass
    terms = [
        mean - log_mass,
        square - log_mass * (2 * mean - log_mass),
        plain - support * log_mass,
        root * (-0.5 * log_mass).exp(),
        fourth_root * (-0.25 * log_mass).exp(),
        support,
    ]
    return RowStatistics(torch.stack(terms, -1), maximum[:, 0].double() + log_mass)


def _both_in_one_loop(
    logits: torch.Tensor, token_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _both(_in_one_loop(logits), logits, token_ids)


def _both(
    found: RowStatistics, logits: torch.Tensor, token_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = _find(logits, found.total, token_ids)
    return torch.cat([found.sums, tokens[:, 1:2]], -1), tokens[:, 2].long()


def _find(logits: torch.Tensor, total: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    chosen = logits.gather(-1, token_ids[:, None])
    ranks = (logits >= chosen).sum(-1)
    return torch.stack([token_ids.double(), chosen[:, 0] - total, ranks.double()], -1)


# With the variable set, `torch.compile` leaves functions as they are.
_compiles = has_compiler() and os.environ.get("TORCHDYNAMO_DISABLE") != "1"
_compiled = torch.compile(_in_one_loop) if _compiles else None
_compiled_find = torch.compile(_find) if _compiles else None
_compiled_both = torch.compile(_both_in_one_loop) if _compiles else None


def _total(terms: torch.Tensor) -> torch.Tensor:
    return _totals([terms])[0]


def _totals(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum rows in float64, but blocks of them in float32: as exact, and much faster on the CPU."""
    blocks, rest = divmod(terms[0].shape[-1], _BLOCK)
    end = blocks * _BLOCK
    bodies = [term[..., :end].unflatten(-1, (blocks, _BLOCK)).sum(-1) for term in terms]
    totals = torch.stack(bodies).sum(-1, dtype=torch.float64)
    if not rest:
        return totals
    return totals + torch.stack([term[..., end:].sum(-1, dtype=torch.float64) for term in terms])
