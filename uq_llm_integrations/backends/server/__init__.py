"""Servers of vLLM: one or many, reached over HTTP, and the start of one."""
