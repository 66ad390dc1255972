"""To be merged into the families."""
