"""Whether an answer comes from its sources, and from which of them."""
