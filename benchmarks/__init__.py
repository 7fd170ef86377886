"""What the figures of speed and memory are made with; run from the project's root, `python -m benchmarks.step`."""
