"""Hugging Face transformers: full access to logits, hidden states and attention."""
