from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from amopo_jax import mesh as meshes
from amopo_jax.models.attention import attention
from amopo_jax.models.attention.fused import fused_attention
from amopo_jax.models.attention.pallas_tpu import pallas_tpu
from amopo_jax.models.attention.pallas_triton import pallas_triton
from amopo_jax.models.attention.xla_blocks import xla_blocks
from amopo_jax.types import Batch, InputError, PackedRows, PairInfo


@pytest.fixture
def mesh():
  return meshes.make_mesh(data=2, fsdp=2, tensor=2)


def test_a_batch_is_split_over_rows(mesh):
  rows = PackedRows(*[np.zeros((2, 8, 16), np.int32)] * 5)
  pairs = PairInfo(np.zeros((2, 3, 2), bool), np.zeros((2, 3, 2), np.float32), np.zeros((2, 3), np.float32))
  placed = meshes.place_batch(Batch(rows, pairs, np.zeros((2, 3), np.int32)), mesh)
  assert placed.rows.tokens.sharding.shard_shape((2, 8, 16)) == (2, 2, 16)
  assert placed.pairs.weight.sharding.is_fully_replicated  # three places do not divide over four shards


def test_the_constrain_hook_keeps_values_and_sets_the_layout(mesh):
  x = jnp.arange(4 * 2 * 16.0).reshape(4, 2, 16)
  laid = jax.jit(lambda y: meshes.make_constrain(mesh)(y, "residual"))(x)
  assert laid.sharding.shard_shape(x.shape) == (1, 2, 16)
  np.testing.assert_array_equal(laid, x)


@pytest.mark.parametrize(
  "kind, shape", [("residual", (2, 8, 4)), ("head_shards", (2, 8, 4)), ("head_weight", (2, 16, 4))]
)
def test_over_context_tokens_are_split(kind, shape):
  mesh = meshes.make_mesh(data=2, fsdp=1, context=2, tensor=2)
  laid = jax.jit(lambda y: meshes.make_constrain(mesh)(y, kind))(jnp.zeros((4, 16, 4)))
  assert laid.sharding.shard_shape(laid.shape) == shape


@pytest.mark.parametrize(
  "sizes, rows, row_length, message",
  [
    ((2, 2, 1, 2), 6, 64, "config.batch: 6 rows per micro-batch do not divide over 4 devices, data . fsdp"),
    (
      (1, 2, 4, 1),
      8,
      62,
      "config.batch.row_length: 62 tokens do not divide over config.mesh.context=4 devices; choose",
    ),
  ],
)
def test_a_batch_that_does_not_divide_over_the_mesh_is_refused(sizes, rows, row_length, message):
  mesh = meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))
  meshes.check_batch(mesh, rows=8, row_length=64)
  with pytest.raises(InputError, match=message):
    meshes.check_batch(mesh, rows=rows, row_length=row_length)


BACKENDS = {
  "xla": attention,
  "blocks": partial(fused_attention, xla_blocks()),
  "tpu": partial(fused_attention, pallas_tpu(interpret=True)),
  "triton": partial(fused_attention, pallas_triton(interpret=True)),
}
SPLITS = [
  ("triton", (2, 2, 1, 2), None),
  ("triton", (2, 1, 2, 2), 5),
  ("tpu", (1, 2, 4, 1), 5),
  ("blocks", (1, 1, 4, 2), None),
  ("xla", (1, 2, 2, 2), 5),
]


@pytest.mark.parametrize("backend, sizes, window", SPLITS)
def test_an_attention_that_knows_one_device_runs_on_many(backend, sizes, window):
  mesh = meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))
  shapes = [(4, 64, heads, 16) for heads in (4, 2, 2, 4)]
  q, k, v, weight = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
  place = jnp.broadcast_to(jnp.arange(64, dtype=jnp.int32), (4, 64))
  end = jnp.where(place < 30, 64, jnp.where(place < 50, 50, 64)).astype(jnp.int32)
  split = meshes.split_attention(BACKENDS[backend], mesh)

  def value(attend, *heads):
    output = attend(*heads, end, chunk=32, positions=place, window=window)
    return jnp.sum(weight * output), output

  run = lambda attend: jax.jit(jax.grad(partial(value, attend), (0, 1, 2), has_aux=True))(q, k, v)
  (ours, output), (theirs, expected) = run(split), run(attention)
  parts = sizes[0] * sizes[1], sizes[2], sizes[3], 1
  assert output.sharding.shard_shape(output.shape) == tuple(x // y for x, y in zip(output.shape, parts, strict=True))
  for mine, other in zip((output, *ours), (expected, *theirs), strict=True):
    np.testing.assert_allclose(mine, other, atol=1e-5)


def test_rows_apart_are_those_of_one_device_each():
  mesh = meshes.make_mesh(data=8, fsdp=1, tensor=1)
  place = lambda mesh, *axes: jax.device_put(jnp.zeros(8), NamedSharding(mesh, PartitionSpec(*axes)))
  assert meshes.each_has_all({"a": place(mesh), "b": place(mesh)}, mesh)
  assert not meshes.each_has_all({"a": place(mesh), "b": place(mesh, "data")}, mesh)
  other = meshes.make_mesh(data=4, fsdp=2, tensor=1)
  assert not meshes.each_has_all({"a": place(other)}, other)
  of_shard = lambda params, rows: params + jnp.full_like(rows, rows.shape[0] * jnp.min(rows))
  found = meshes.jit_for(mesh, meshes.apart(of_shard, mesh), is_small=True)(jnp.asarray(1), jnp.arange(16))
  np.testing.assert_array_equal(found, 1 + 2 * (np.arange(16) // 2 * 2))
