"""Scripts that measure what the README promises."""
