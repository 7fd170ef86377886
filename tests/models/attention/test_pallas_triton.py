"""The kernel for NVIDIA GPUs: its choice of blocks, and its lowering, which needs no GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from amopo_jax.models.attention.fused import Shape, fused_attention
from amopo_jax.models.attention.pallas_triton import choose_blocks, pallas_triton

SHAPE = Shape(length=8192, members=4, head_dim=128, itemsize=2)


def test_large_heads_are_refused_with_the_figure():
  with pytest.raises(ValueError, match="heads of size 256 are larger than 128"):
    choose_blocks(SHAPE._replace(head_dim=256))


@pytest.mark.parametrize("size, dtype", [(64, jnp.bfloat16), (128, jnp.float32)])
def test_output_and_gradients_are_lowered_for_a_gpu(make_problem, size, dtype):
  problem = make_problem(0, 1, 256, heads=2, key_heads=1, size=size, padding=0, dtype=dtype)
  attend = partial(fused_attention, pallas_triton())
  value = lambda q, k, v: attend(q, k, v, problem.subtree_end, chunk=128, positions=problem.positions, window=40)
  device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
  with use_abstract_mesh(AbstractMesh((1,), ("x",), (AxisType.Auto,), abstract_device=device)):
    traced = jax.jit(lambda q, k, v, d: jax.vjp(value, q, k, v)[1](d)).trace(*problem[:3], problem.d_output)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("__gpu$xla.gpu.triton") == 3  # output, d_q, d_k and d_v
