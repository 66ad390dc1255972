"""Scripts that measure what the documentation promises."""
