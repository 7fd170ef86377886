"""The kernel for the TPU: its choice of blocks, and the TPU's own compiler on this machine's CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from amopo_jax.models.attention.block_map import Blocks
from amopo_jax.models.attention.fused import Shape, fused_attention
from amopo_jax.models.attention.pallas_tpu import choose_blocks, pallas_tpu
from amopo_jax.types import InputError

SHAPE = Shape(length=8192, members=4, head_dim=128, itemsize=2)


@pytest.mark.parametrize(
  "changes, size",
  [
    ({}, 256),
    ({"length": 129}, 256),
    ({"length": 128}, 128),
    ({"length": 5}, 128),
    ({"members": 16, "itemsize": 4}, 256),
    ({"members": 32, "itemsize": 4}, 128),
  ],
)
def test_blocks_are_the_largest_that_the_row_and_the_memory_allow(changes, size):
  assert choose_blocks(SHAPE._replace(**changes)) == Blocks(size, size)


def test_heads_that_do_not_fit_are_refused_with_the_figure():
  with pytest.raises(ValueError, match=r"64 query heads of size 256 per key head need \d+ MiB of fast memory"):
    choose_blocks(SHAPE._replace(members=64, head_dim=256, itemsize=4))


def test_a_list_too_long_for_scalar_memory_is_refused_with_the_remedy(make_problem):
  shape = lambda heads: jax.ShapeDtypeStruct((64, 131072, heads, 128), jnp.bfloat16)
  end = jax.ShapeDtypeStruct((64, 131072), jnp.int32)
  attend = partial(fused_attention, pallas_tpu(), chunk=128)
  with pytest.raises(
    InputError, match=r"64 rows of 131072 tokens .* KiB of scalar memory; .*config\.batch\.accumulation"
  ):
    jax.eval_shape(attend, shape(4), shape(2), shape(2), end)


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize(
  "heads, size, dtype, window",
  [
    (7, 64, jnp.bfloat16, None),
    pytest.param(4, 128, jnp.bfloat16, 256, marks=pytest.mark.slow),
    pytest.param(8, 128, jnp.float32, None, marks=pytest.mark.slow),
  ],
)
def test_forward_and_backward_compile_for_the_tpu(tpu_devices, topology, heads, size, dtype, window):
  place = SingleDeviceSharding(tpu_devices(topology)[0])
  shape = lambda *sizes, dtype=dtype: jax.ShapeDtypeStruct((2, 1024, *sizes), dtype, sharding=place)

  def gradients(q, k, v, end, positions, d_output):
    attend = lambda q, k, v: fused_attention(pallas_tpu(), q, k, v, end, chunk=512, positions=positions, window=window)
    return jax.vjp(attend, q, k, v)[1](d_output)

  tokens = shape(dtype=jnp.int32)
  operands = shape(2 * heads, size), shape(2, size), shape(2, size), tokens, tokens, shape(2 * heads, size)
  text = jax.jit(gradients).lower(*operands).compile().as_text()
  assert text.count('custom_call_target="tpu_custom_call"') == 3  # output, d_q, d_k and d_v
