"""Several awaitables at the same time, none of which outlives a failure of another."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def together(runs: Iterable[Awaitable[T]]) -> list[T]:
    """Await several at the same time; where one fails, the others are cancelled.

    Example:
        >>> asyncio.run(together([asyncio.sleep(0, "one"), asyncio.sleep(0, "two")]))
        ['one', 'two']
    """
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await cancel(tasks)
        raise


async def cancel(tasks: Sequence[asyncio.Future[T]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
