"""Methods that are fitted on training texts, and what they keep."""
