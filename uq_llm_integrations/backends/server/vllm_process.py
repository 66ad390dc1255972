"""What runs in place of vLLM's own program: `vllm serve` with our defaults and a progress line.

Processes that vLLM spawns import this module again, which makes their imports safe, too.
"""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping, Sequence

from uq_llm_integrations.backends.server import vllm_program
from uq_llm_integrations.backends.server.readiness import Address, report_readiness
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.backends.vllm.client_compat import is_cpu
from uq_llm_integrations.backends.vllm.launch import cpu_environment, platform_defaults
from uq_llm_integrations.checkpoints import resolve_model
from uq_llm_integrations.errors import UncertaintyError, reason

hide_mismatched_builds(from_vllm=True)

LOOPBACK = "127.0.0.1"
"""Where a server listens unless it is told: vLLM's own default is every interface."""


def serve(arguments: Sequence[str]) -> None:
    """Serve a model until a signal ends it; the arguments are those of `vllm serve`."""
    command, defaults = list(arguments), platform_defaults()
    name = command[0] if not command[0].startswith("-") else None
    if name is not None:
        source = resolve_model(name)
        source.prepare()
        command[0] = source.path
        defaults |= {**source.defaults, "served_model_name": name}
    given = vllm_program.parsed(command)
    if not given.uds:
        defaults["host"] = LOOPBACK
    command += flags({one: defaults[one] for one in defaults if not is_given(given, one, command)})
    given = vllm_program.parsed(command)
    if is_cpu():
        os.environ.update(cpu_environment(is_eager=given.enforce_eager))
    if not (given.headless or given.grpc):
        report_readiness(Address.of(given), name or given.model)
    vllm_program.run(command)


def is_given(given: Namespace, name: str, command: Sequence[str]) -> bool:
    """Return whether the user has set an argument, by a flag or in vLLM's configuration file."""
    value = getattr(given, name)
    negated = flags({name: False})[0]
    return value not in (None, False, "auto") or (value is False and negated in command)


def flags(arguments: Mapping[str, object]) -> list[str]:
    """Return arguments of vLLM's engine as flags.

    Example:
        >>> flags({"enable_chunked_prefill": False, "dtype": "float32"})
        ['--no-enable-chunked-prefill', '--dtype', 'float32']
    """
    found: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", str(value)]
    return found


def main() -> None:
    """Serve what the command line names; what goes wrong is the last line on stderr."""
    arguments = sys.argv[1:]
    try:
        serve(arguments)
    except UncertaintyError as error:
        sys.exit(f"Error: {error}")
    except (OSError, ValueError) as error:
        sys.exit(f"Error: vLLM cannot serve {arguments[0]!r}: {reason(error)}")
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"Error: vLLM cannot serve {arguments[0]!r}: {reason(error)}")


if __name__ == "__main__":
    main()
