"""What happens in the engine's workers: each row's statistics, beside its log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from uq_llm_integrations.backends.server.serving.columns import Columns, packed
from uq_llm_integrations.backends.server.serving.marks import WIDTH, Mark, read_mark

if TYPE_CHECKING:
    import torch
    from vllm.sampling_params import SamplingParams
    from vllm.v1.outputs import LogprobsTensors


T = TypeVar("T")


class Wanted(NamedTuple):
    """What is wanted of some rows."""

    is_wanted: bool = False
    """Whether some of them need their statistics."""
    has_forbidden: bool = False
    """Whether a grammar forbids tokens in any."""
    is_all: bool = True
    """Whether none of them needs anything but its statistics."""

    @property
    def is_alone(self) -> bool:
        """Whether statistics are wanted, and nothing else."""
        return self.is_wanted and self.is_all


NOTHING = Wanted()


class Step:
    """What is wanted of the log-probabilities that are gathered next."""

    def __init__(self) -> None:
        self.samples = NOTHING
        self.prompts: Iterator[bool] | None = None
        """Whether each part of a prompt is wanted, while these are scored."""


def wanted_of(batch: list[SamplingParams | None]) -> Wanted:
    """Return what is wanted of a batch with these parameters."""
    params = [one for one in batch if one is not None]
    marks = [read_mark(one.extra_args) for one in params]
    return Wanted(
        any(marks),
        any(one.structured_outputs is not None for one in params),
        all(_needs_nothing_else(*one) for one in zip(params, marks, strict=True)),
    )


def _needs_nothing_else(params: SamplingParams, mark: Mark | None) -> bool:
    return params.num_logprobs is None if mark is None else mark.is_all


def scores_of(
    step: Step, log_softmax: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor
) -> torch.Tensor:
    """Return log-probabilities, or logits where nobody needs more than the statistics of these.

    They are copied, since the logits are changed before a token is sampled.
    """
    return logits.clone() if step.samples.is_alone else log_softmax(logits)


def scores_prompt(params: SamplingParams) -> bool:
    """Return whether the statistics of a request's prompt are wanted."""
    mark = read_mark(params.extra_args)
    return mark is not None and mark.scores_prompt and params.prompt_logprobs != -1


def gathered(
    step: Step,
    gather: Callable[..., LogprobsTensors],
    logprobs: torch.Tensor,
    count: int,
    token_ids: torch.Tensor,
) -> LogprobsTensors:
    """Return the top log-probabilities with the columns, if they are wanted.

    Of a prompt, `count` includes the columns.
    """
    if step.prompts is not None:
        if not next(step.prompts, False):
            return gather(logprobs, count, token_ids)
        found = gather(logprobs, count - WIDTH, token_ids)
        return with_columns(found, logprobs, has_forbidden=False)
    if step.samples.is_alone:
        return columns_alone(logprobs, token_ids, has_forbidden=step.samples.has_forbidden)
    return with_wanted(step, gather(logprobs, count, token_ids), logprobs)


def columns_alone(
    scores: torch.Tensor, token_ids: torch.Tensor, *, has_forbidden: bool
) -> LogprobsTensors:
    """Return the columns beside the tokens' own log-probabilities, without any of other tokens."""
    from vllm.v1.outputs import LogprobsTensors

    from uq_llm_integrations.backends.token_statistics_torch import statistics_and_tokens

    values, ranks = statistics_and_tokens(scores, token_ids, has_forbidden=has_forbidden)
    found = LogprobsTensors(token_ids[:, None].int(), values[:, -1:].float(), ranks)
    return appended(found, packed(values, found.logprob_token_ids.dtype))


def with_wanted(step: Step, found: LogprobsTensors, scores: torch.Tensor) -> LogprobsTensors:
    """Return a step's log-probabilities with the columns, if they are wanted."""
    if not step.samples.is_wanted:
        return found
    return with_columns(found, scores, has_forbidden=step.samples.has_forbidden)


def with_columns(
    found: LogprobsTensors, scores: torch.Tensor, *, has_forbidden: bool
) -> LogprobsTensors:
    """Return log-probabilities with the columns of the same rows, [rows, vocabulary]."""
    columns = statistics_of(found, scores, has_forbidden=has_forbidden)
    return appended(found, columns)


def statistics_of(found: LogprobsTensors, scores: torch.Tensor, *, has_forbidden: bool) -> Columns:
    """Return the columns of rows of logits or log-probabilities, [rows, vocabulary].

    The first id in each row of `found` is that of its own token.
    """
    import torch

    from uq_llm_integrations.backends.token_statistics_torch import row_statistics

    sums, total = row_statistics(scores, has_forbidden=has_forbidden)
    own = scores.gather(-1, found.logprob_token_ids[:, :1].long()).double() - total[:, None]
    return packed(torch.cat([sums, own], -1), found.logprob_token_ids.dtype)


def appended(found: LogprobsTensors, columns: Columns) -> LogprobsTensors:
    """Return log-probabilities with further columns."""
    import torch

    return found._replace(
        logprob_token_ids=torch.cat([found.logprob_token_ids, columns.ids], dim=1),
        logprobs=torch.cat([found.logprobs, columns.logprobs], dim=1),
    )


def warm_up(vocabulary_size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Compile what the first request would otherwise wait for."""
    from uq_llm_integrations.backends import token_statistics_torch

    token_statistics_torch.warm_up_both(vocabulary_size, dtype, device)


def any_wanted(slots: Mapping[int, Wanted], batch: Iterable[Any]) -> Wanted:
    """Return what is wanted of the requests in some slots of the V2 runner."""
    found = [slots.get(int(slot), NOTHING) for slot in batch]
    return Wanted(
        any(one.is_wanted for one in found),
        any(one.has_forbidden for one in found),
        all(one.is_all for one in found),
    )


def prompt_width(params: SamplingParams) -> int | None:
    """Return where the columns of a prompt begin, None where they are not wanted."""
    if not scores_prompt(params):
        return None
    return int(params.prompt_logprobs or 0) - WIDTH + 1


class PromptBatch:
    """The columns of the prompts that one step of the V2 runner scores.

    It computes the log-probabilities of all tokens at once, as many as any request wants, and cuts
    off for each request what it did not want. So the columns are written over the last of those
    that the request itself has asked for.
    """

    def __init__(self) -> None:
        self._places: list[tuple[int, int, int]] = []
        self._columns: list[Columns] = []

    def begin(self, widths: Mapping[int, int | None], slots: list[int], starts: list[int]) -> None:
        """Expect the rows of a batch of requests in these slots, which begin at these rows."""
        ends = zip(slots, starts, starts[1:], strict=False)
        places = [(start, end, widths.get(slot)) for slot, start, end in ends]
        self._places = [(start, end, at) for start, end, at in places if at is not None]
        self._columns = []

    def end(self) -> None:
        """Forget the batch."""
        self._places, self._columns = [], []

    def see(self, found: LogprobsTensors, logits: torch.Tensor) -> None:
        """Compute the columns of the next rows."""
        if self._places:
            self._columns.append(statistics_of(found, logits, has_forbidden=False))

    def written(self, scored: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return the ids, log-probabilities and ranks of all rows with the columns in them."""
        import torch

        ids, logprobs, ranks = scored
        if self._columns:
            own = torch.cat([one.ids for one in self._columns])
            marks = torch.cat([one.logprobs for one in self._columns])
            for start, end, at in self._places:
                ids[start:end, at : at + WIDTH] = own[start:end].to(ids.dtype)
                logprobs[start:end, at : at + WIDTH] = marks[start:end]
        return ids, logprobs, ranks


def most_cached(params: SamplingParams | None) -> int | None:
    """Return how many tokens of a request may come from the prefix cache, None for all.

    The distribution of a token is computed with the token before it.
    """
    mark = read_mark(params.extra_args) if params is not None else None
    if mark is None or not mark.scores_prompt:
        return None
    return max(mark.scored_from - 1, 0)


def limited(find: Callable[..., T], most: int) -> Callable[..., T]:
    """Return a search of the prefix cache that finds no more tokens than `most`."""

    def find_longest_cache_hit(
        block_hashes: Any, max_cache_hit_length: int, *arguments: Any, **options: Any
    ) -> T:
        return find(block_hashes, min(max_cache_hit_length, most), *arguments, **options)

    return find_longest_cache_hit
