"""Ending a sample inside the worker: no round trip, and nothing leaves the device.

The token that is forced upon a stopped sample is one of its stop tokens, so that the scheduler ends
it. The rows say that it was forced, and the client leaves it out.
"""

from collections.abc import Iterable, Mapping

import torch

from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.backends.vllm.worker.recorder import Row

Rule = tuple[str, int, float, int]
"""The statistic, the window in tokens, the threshold in nats, the token that is forced."""

_ENTROPY, _PLAIN, _SUPPORT, _STOPPED = (
    COLUMNS.index(name) for name in ("negative_entropy", "plain", "support", "stopped")
)


class EarlyStopper:
    """Follows the running sums of requests with a rule; a window's mean is a difference of two."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, torch.Tensor]] = {}

    def apply(
        self,
        logits: torch.Tensor,
        table: torch.Tensor,
        rows: list[Row],
        rules: Mapping[str, Rule],
    ) -> None:
        """Force the stop token, in place, where a full window's mean is above its threshold.

        Row i of `table` has the statistics of `rows[i]`, and records which rows were stopped.
        """
        ruled = [(i, *row) for i, row in enumerate(rows) if row[1] in rules]
        if not ruled:
            return
        entries, stops = [i for i, *_ in ruled], self._stops(table, ruled, rules)
        table[entries, _STOPPED] = stops.double()
        if stops.is_cpu and not stops.any():
            return  # elsewhere, looking would make the device wait
        at = [row for _, row, _, _ in ruled]
        tokens = [rules[request][3] for _, _, request, _ in ruled]
        forced = torch.where(stops, 0.0, logits[at, tokens])
        logits[at] = logits[at].masked_fill(stops[:, None], -torch.inf)
        logits[at, tokens] = forced

    def forget(self, requests: Iterable[str]) -> None:
        """Drop what is kept of some requests."""
        for request in requests:
            self._sums.pop(request, None)

    def _stops(
        self,
        table: torch.Tensor,
        ruled: list[tuple[int, int, str, int]],
        rules: Mapping[str, Rule],
    ) -> torch.Tensor:
        statistics, windows, thresholds, _ = zip(
            *(rules[request] for _, _, request, _ in ruled), strict=True
        )
        found = table[[i for i, *_ in ruled]]
        is_entropy = found.new_tensor([name == "entropy" for name in statistics]) > 0
        self_certainty = found[:, _PLAIN] / found[:, _SUPPORT] + found[:, _SUPPORT].log()
        values = torch.where(is_entropy, -found[:, _ENTROPY], self_certainty)
        totals = values + self._at(values, [(r, index - 1) for _, _, r, index in ruled])
        ends = [(r, index - w) for (_, _, r, index), w in zip(ruled, windows, strict=True)]
        means = (totals - self._at(values, ends)) / found.new_tensor(windows)
        for (_, _, request, index), window, total in zip(ruled, windows, totals, strict=True):
            sums = self._sums.setdefault(request, {})
            sums[index] = total
            sums.pop(index - window - 1, None)
        is_full = found.new_tensor([index >= -1 for _, index in ends]) > 0
        return is_full & (means > found.new_tensor(thresholds))

    def _at(self, like: torch.Tensor, cells: list[tuple[str, int]]) -> torch.Tensor:
        """Return sums: 0 before the first token, NaN, which stops nothing, where one is missing."""
        zero, missing = like.new_zeros(()), like.new_full((), torch.nan)
        return torch.stack(
            [zero if index < 0 else self._sums.get(r, {}).get(index, missing) for r, index in cells]
        )


EARLY_STOPPER = EarlyStopper()
