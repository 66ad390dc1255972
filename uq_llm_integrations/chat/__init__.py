"""Conversations with a model: what it replied, which tools it called, how sure it was of each."""
