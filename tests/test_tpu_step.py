"""The real train step, parameters and rows split over four chips, by the TPU's compiler: kernels in, no S × S."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_objective
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy
from amopo_jax.prepare import build_optimizer
from amopo_jax.state import abstract_state
from amopo_jax.step import make_train_step
from amopo_jax.types import Batch, PackedRows, PairInfo

LENGTH, PAIRS = 4096, 8


def abstract_batch(mesh) -> Batch:
  """Two rows, one on each half of the mesh."""
  put = lambda shape, dtype, *axes: jax.ShapeDtypeStruct(
    shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(None, *axes))
  )
  tokens = put((1, 2, LENGTH), jnp.int32, meshes.ROW_AXES)
  table = lambda dtype: put((1, PAIRS, 2), dtype)
  pairs = PairInfo(table(jnp.bool_), table(jnp.float32), put((1, PAIRS), jnp.float32))
  return Batch(PackedRows(*[tokens] * 5), pairs, put((1, PAIRS), jnp.int32))


def compile_step(spec, devices):
  """The train step of a config for devices that are not there."""
  mesh = meshes.make_mesh(data=1, fsdp=2, tensor=2, devices=devices)
  source = find_policy("", dict(spec.model.arch))
  params = abstract_params(source.config, jnp.float32)
  tx, schedule = build_optimizer(spec, 10)
  state = abstract_state(params, tx, seed=0)
  shardings = meshes.state_shardings(state, params, build.param_shardings(spec, params, mesh), mesh)
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  score_fn = build.build_score_fn(spec.model, source.config, 2, mesh)
  step = make_train_step(score_fn, build_objective(spec.objective, 2, parts=1), tx, schedule)
  lowered = jax.jit(step, donate_argnums=0).lower(jax.tree.map(put, state, shardings), abstract_batch(mesh))
  return lowered.compile()


@pytest.mark.parametrize("remat, kernels", [("save_attention", 3), pytest.param("full", 4, marks=pytest.mark.slow)])
def test_the_train_step_compiles_for_the_tpu_with_the_kernels_and_without_a_square(
  make_spec, tpu_devices, remat, kernels
):
  spec = make_spec(model__compute_dtype="bfloat16", model__remat=remat, batch__row_length=LENGTH)
  compiled = compile_step(spec, tpu_devices("v5e:2x2"))
  # The scan over layers holds one forward and two backward kernels; without the kept output a second forward one.
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == kernels
  square = LENGTH**2 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < square / 2
