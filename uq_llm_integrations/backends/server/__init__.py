"""Servers of vLLM, reached over HTTP: one, or many that serve the same model."""
