"""Uncertainty methods: what each is, what it needs, and its formula."""
