"""From vLLM's errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from uq_llm_integrations.errors import (
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
    UncertaintyError,
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn vLLM's errors into ours."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

    try:
        yield
    except EngineDeadError as error:
        # One object tells all who wait; each gets one of its own, for what it adds to it.
        raise type(error)(*error.args) from error
    except VLLMEngineDeadError as error:
        raise EngineDeadError("the engine's process died") from error
    except (VLLMClientError, ValueError, TypeError) as error:
        if isinstance(error, UncertaintyError):
            raise
        raise InvalidRequestError(f"vLLM refuses the request: {error}") from error
    except TimeoutError as error:
        raise EngineTimeoutError("the engine did not answer in time") from error
    except Exception as error:
        if isinstance(error.__cause__, EngineDeadError):
            raise type(error.__cause__)(*error.__cause__.args) from error
        if isinstance(error, UncertaintyError):
            raise
        raise EngineError(f"vLLM failed: {error}") from error
