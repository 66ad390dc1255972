"""The command line: ask a question or score a text, and see how sure the model is."""

from uq_llm_integrations.optional_packages import optional_module

for _name in ("typer", "rich"):
    optional_module(_name, "cli")

from uq_llm_integrations.cli import asking, catalogue, evaluating  # noqa: E402, F401  # their commands
from uq_llm_integrations.cli.application import app  # noqa: E402  # where its packages are missing that is said first

__all__ = ["app"]
