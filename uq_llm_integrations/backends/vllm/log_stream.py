"""Where vLLM's log lines go. stdout belongs to the program, so they go to stderr.

vLLM itself writes them to stdout, and reads the choice from the environment when it is imported.
Whoever has chosen a stream, or a logging configuration, keeps it.
"""

import logging
import os
import sys
from contextlib import suppress

STREAM = "VLLM_LOGGING_STREAM"
CONFIGURATION = "VLLM_LOGGING_CONFIG_PATH"
STDERR = "ext://sys.stderr"


def log_to_stderr() -> None:
    """Choose stderr for vLLM in this process and in those of its engines, if nobody has chosen."""
    if STREAM in os.environ or CONFIGURATION in os.environ:
        return
    os.environ[STREAM] = STDERR
    for handler in logging.getLogger("vllm").handlers:  # it was imported before
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)


def redirect_stdout() -> None:
    """Send to stderr what else a process of an engine writes to stdout, such as C++ code's lines.

    Not where vLLM is to log to stdout.
    """
    if os.environ.get(STREAM) == STDERR and CONFIGURATION not in os.environ:
        with suppress(OSError):  # there is no stderr
            os.dup2(2, 1)
