"""The configuration file: what is in it, and what it makes."""

from uq_llm_integrations.configuration.file import Configuration

__all__ = ["Configuration"]
