"""The loops over live blocks on a CPU: what they skip, and their memory. Their numerics are in `test_fused.py`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.attention.block_map import Blocks
from amopo_jax.models.attention.fused import Shape, fused_attention
from amopo_jax.models.attention.reference import attention
from amopo_jax.models.attention.xla_blocks import choose_blocks, xla_blocks


@pytest.mark.parametrize(
  "length, members, blocks", [(8192, 7, (128, 128)), (8192, 4, (256, 128)), (128, 2, (128, 128)), (40, 7, (40, 40))]
)
def test_few_members_make_larger_blocks_and_a_short_row_is_one(length, members, blocks):
  assert choose_blocks(Shape(length=length, members=members, head_dim=64, itemsize=4)) == Blocks(*blocks)


@pytest.mark.parametrize("length", [129, 256, 300])
def test_blocks_divide_a_row_of_any_length(length):
  q, k = (jnp.ones((2, length, heads, 16)) for heads in (4, 2))
  ends = jnp.full((2, length), length, jnp.int32)
  found = fused_attention(xla_blocks(), q, k, k, ends, chunk=1)
  np.testing.assert_allclose(found, jnp.ones_like(q), rtol=1e-6)


@pytest.mark.slow
def test_several_long_rows_with_a_window_are_as_the_reference_has_them(make_problem):
  problem = make_problem(8, 3, 520, heads=4, key_heads=2, size=32, padding=70, dtype=jnp.float32)
  out = []
  for attend in (partial(fused_attention, xla_blocks()), attention):
    one = lambda q, k, v, attend=attend: attend(
      q, k, v, problem.subtree_end, chunk=64, positions=problem.positions, window=60
    )
    output, pull = jax.vjp(one, problem.q, problem.k, problem.v)
    out.append((output, *pull(problem.d_output)))
  for mine, expected in zip(*out, strict=True):
    np.testing.assert_allclose(mine, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_a_head_keeps_its_size():
  wide = jax.ShapeDtypeStruct((1, 256, 2, 20), jnp.float32)
  ends = jax.ShapeDtypeStruct((1, 256), jnp.int32)
  traced = str(jax.make_jaxpr(partial(fused_attention, xla_blocks(), chunk=1))(wide, wide, wide, ends))
  assert "20,128]" in traced
  assert "64,128]" not in traced


def test_memory_grows_with_the_row_not_with_its_square():
  def temporaries(length: int) -> int:
    heads = jax.ShapeDtypeStruct((1, length, 2, 32), jnp.float32)
    ends = jax.ShapeDtypeStruct((1, length), jnp.int32)
    value = lambda q, k, v, ends: jnp.sum(fused_attention(xla_blocks(), q, k, v, ends, chunk=1))
    compiled = jax.jit(jax.grad(value, (0, 1, 2))).lower(heads, heads, heads, ends).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(4096) < 2.5 * temporaries(2048)
