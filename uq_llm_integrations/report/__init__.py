"""Showing scores: to programs as plain data, to people in the terminal and in notebooks."""
