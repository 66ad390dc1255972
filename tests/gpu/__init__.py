"""What needs a GPU; `python -m tests.gpu.run` runs all of it in eight minutes at most."""
