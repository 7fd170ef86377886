"""Short rows at once: when, and that it is what the loops compute. Numerics against the reference: `test_fused.py`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.attention import xla_rows
from amopo_jax.models.attention.fused import fused_attention
from amopo_jax.models.attention.xla_blocks import xla_blocks


def pulled(problem, **settings):
  one = lambda q, k, v: fused_attention(
    xla_blocks(), q, k, v, problem.subtree_end, chunk=1, positions=problem.positions, **settings
  )
  output, pull = jax.vjp(one, problem.q, problem.k, problem.v)
  return output, *pull(problem.d_output)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 3e-6), (jnp.bfloat16, 0.01)])
@pytest.mark.parametrize("window", [None, 7])
def test_rows_at_once_are_what_the_loops_compute(make_problem, monkeypatch, window, dtype, tolerance):
  problem = make_problem(0, 3, 24, heads=6, key_heads=2, size=10, padding=3, dtype=dtype)
  at_once = pulled(problem, window=window)
  monkeypatch.setattr(xla_rows, "_MOST_SCORES", 0)
  for mine, expected in zip(at_once, pulled(problem, window=window), strict=True):
    assert mine.dtype == expected.dtype == dtype
    mine, expected = (np.asarray(x, np.float32) for x in (mine, expected))
    np.testing.assert_allclose(mine, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
  "rows, length, heads, is_at_once",
  [(16, 128, 4, True), (17, 128, 4, False), (1, 129, 1, False), (9, 128, 4, True), (64, 128, 14, False)],
)
def test_rows_of_one_block_whose_scores_are_few_have_no_loop(rows, length, heads, is_at_once):
  q, k = (jax.ShapeDtypeStruct((rows, length, n, 8), jnp.float32) for n in (heads, 1))
  ends = jax.ShapeDtypeStruct((rows, length), jnp.int32)
  attend = partial(fused_attention, xla_blocks(), chunk=1)
  total = lambda q, k, v, ends: jnp.sum(attend(q, k, v, ends))
  for function in (attend, jax.grad(total, (0, 1, 2))):
    assert ("while" not in str(jax.make_jaxpr(function)(q, k, k, ends))) == is_at_once
