"""Batches of texts, and what happens when memory runs out."""

import pytest

from uq_llm_integrations import EngineError
from uq_llm_integrations.backends.batching import HALVINGS, in_batches


class FakePass:
    """A pass that runs out of memory with more texts than it can hold."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []

    async def __call__(self, batch: list[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise MemoryError
        return [10 * number for number in batch]


async def test_batches_are_sorted_by_length_and_kept_under_the_budget():
    seen = []

    async def run(batch: list[int]) -> list[int]:
        seen.append(batch)
        return batch

    outputs = await in_batches([1, 50, 3, 2, 120], run, MemoryError, tokens_at_once=100)
    assert outputs == [0, 1, 2, 3, 4]
    assert seen == [[4], [1, 2], [3, 0]]


async def test_a_batch_is_halved_until_it_fits_and_no_text_is_lost():
    run = FakePass(most=2)
    assert await in_batches([1] * 9, run, MemoryError) == [10 * number for number in range(9)]
    assert run.sizes == [9, 4, 2, 2, 2, 2, 1]


async def test_halving_is_bounded_and_the_error_says_what_was_tried():
    run = FakePass(most=0)
    with pytest.raises(EngineError, match="batches of 100, 50, 25, 12, 6;"):
        await in_batches([1] * 100, run, MemoryError)
    assert len(run.sizes) == HALVINGS + 1
    with pytest.raises(EngineError, match="batches of 1;"):
        await in_batches([1], FakePass(most=0), MemoryError)


async def test_other_errors_are_not_retried():
    with pytest.raises(MemoryError):
        await in_batches([1, 1], FakePass(most=1), KeyError)


async def test_nothing_takes_no_pass():
    assert await in_batches([], FakePass(most=0), MemoryError) == []
