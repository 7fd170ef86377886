"""Host side: annotated records become packed token rows. Numpy only, no jax arrays (docs/data.md)."""
