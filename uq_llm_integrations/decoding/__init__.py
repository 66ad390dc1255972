"""What to do about scores."""
