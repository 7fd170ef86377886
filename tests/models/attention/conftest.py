"""Tries and heads for the tests of the kernels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest


class Problem(NamedTuple):
  """One call of an attention, and a gradient of its output."""

  q: Any
  k: Any
  v: Any
  subtree_end: Any
  positions: Any
  d_output: Any


@pytest.fixture(scope="session")
def make_problem():
  """Makes random heads over rows of several random tries each, the last tokens of a row padding."""

  def make(
    seed: int, rows: int, length: int, *, heads: int, key_heads: int, size: int, padding: int, dtype: Any
  ) -> Problem:
    draw = np.random.default_rng(seed)
    end, positions = (np.zeros((rows, length), np.int32) for _ in range(2))
    for r in range(rows):
      path: list[int] = []
      for i in range(length - padding):
        if draw.random() < 0.04:  # a branch, or with an empty path the next pair of the row
          del path[draw.integers(0, len(path) + 1) :]
        positions[r, i] = len(path)
        path.append(i)
        end[r, path] = i + 1
    keys = jax.random.split(jax.random.key(seed), 4)
    counts = (heads, key_heads, key_heads, heads)
    q, k, v, d = (jax.random.normal(key, (rows, length, h, size), dtype) for key, h in zip(keys, counts, strict=True))
    return Problem(2 * q, 2 * k, v, jnp.asarray(end), jnp.asarray(positions), d)

  return make
