"""Which texts pass through the model together, and what is done when memory runs out."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from uq_llm_integrations.errors import EngineError

T = TypeVar("T")

TOKENS_AT_ONCE = 2048
"""The most tokens, padding counted in, that pass through the model together; a longer text passes
alone."""

HALVINGS = 4
"""How many times a batch is halved when memory runs out, before that is an error."""


class BatchSize:
    """The most texts in a batch: halved whenever memory runs out, a bounded number of times."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tried: list[int] = []

    def halve(self, tried: int, error: BaseException) -> None:
        """Allow half of what was tried; EngineError where there is nothing left to try."""
        self._tried.append(tried)
        if tried == 1 or len(self._tried) > HALVINGS:
            sizes = ", ".join(map(str, self._tried))
            raise EngineError(
                f"the device's memory ran out with batches of {sizes}; shorter texts, fewer "
                "samples, a smaller dtype or quantization need less"
            ) from error
        self.size = tried // 2


async def in_batches(
    lengths: Sequence[int],
    run: Callable[[list[int]], Awaitable[list[T]]],
    out_of_memory: type[BaseException],
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> list[T]:
    """Run texts of these lengths in batches and return their outputs in the texts' order.

    `run` gets the numbers of some texts. The longest come first, so that texts of a batch are about
    as long as each other, and too little memory shows at once. A batch that raises `out_of_memory`
    runs again in halves.
    """
    left = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    outputs: dict[int, T] = {}
    most = BatchSize(len(left))
    while left:
        fitting = max(1, tokens_at_once // max(1, lengths[left[0]]))
        batch = left[: min(fitting, most.size)]
        try:
            outputs.update(zip(batch, await run(batch), strict=True))
        except out_of_memory as error:
            most.halve(len(batch), error)
            continue
        left = left[len(batch) :]
    return [outputs[i] for i in range(len(lengths))]
