"""Chat models on servers."""
