"""What to sample, which candidate to return, and what to do about its scores."""
