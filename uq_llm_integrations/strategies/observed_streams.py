"""A streamed call as others see it, whoever asks for its pieces and wherever it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.telemetry.observed_calls import ObservedCall, Piece

P = TypeVar("P", bound=Piece)


async def observed_pieces(
    call: ObservedCall, stream: AsyncGenerator[P, None]
) -> AsyncGenerator[P, None]:
    """Yield a stream's pieces, each made within the call, which ends once the stream is closed."""
    try:
        async with closed_at_end(stream) as pieces:
            while True:
                with call.active():  # a step may be another task's
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                call.see(piece)
                yield piece
    except BaseException as error:
        call.finish(error)
        raise
    call.finish()
