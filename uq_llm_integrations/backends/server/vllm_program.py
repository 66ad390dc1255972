"""vLLM's own command line: every reach into it, one function each."""

from __future__ import annotations

import importlib.metadata
import sys
from argparse import Namespace
from collections.abc import Sequence

from uq_llm_integrations.backends.reaches import reach

_DISTRIBUTION = "vllm"


@reach(
    "vllm.entrypoints.cli.serve:ServeSubcommand.subparser_init(subparsers)",
    "vllm.utils.argparse_utils:FlexibleArgumentParser.parse_args(args)",
)
def parsed(command: Sequence[str]) -> Namespace:
    """Return the arguments of `vllm serve`, its configuration file included.

    A flag that it does not have ends the program as `vllm serve` ends: a message, and exit code 2.
    """
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="uq-llm")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    given: Namespace = parser.parse_args(["serve", *command])
    return given


@reach("vllm.entrypoints.cli.main:main()", "vllm:__version__")
def run(command: Sequence[str]) -> None:
    """Run `vllm serve` until it ends.

    It asks for the version of the distribution `vllm`; its CPU build is one of another name.
    """
    from vllm import __version__
    from vllm.entrypoints.cli.main import main

    original = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != _DISTRIBUTION:
                raise
            return str(__version__)

    importlib.metadata.version = version
    sys.argv = [_DISTRIBUTION, "serve", *command]
    main()
