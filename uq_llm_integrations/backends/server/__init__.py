"""Models that a server runs: the client, what the server itself runs, and its start."""
