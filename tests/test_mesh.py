from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.models.attention import attention
from amopo_jax.models.attention.fused import fused_attention
from amopo_jax.models.attention.pallas_triton import pallas_triton
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.transformer import abstract_params
from amopo_jax.state import abstract_state
from amopo_jax.types import Batch, InputError, PackedRows, PairInfo

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=64,
  width=16,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_width=32,
  qkv_bias=True,
)


@pytest.fixture
def mesh():
  return meshes.make_mesh(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize("sizes, shape", [((1, -1, 1), (1, 8, 1)), ((-1, 2, 2), (2, 2, 2)), ((8, 1, -1), (8, 1, 1))])
def test_one_axis_takes_what_is_left(sizes, shape):
  made = meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))
  assert tuple(made.shape.values()) == shape


@pytest.mark.parametrize("sizes", [(3, 1, 1), (3, -1, 1), (-1, -1, 1), (0, 8, 1), (1, 4, 1)])
def test_a_mesh_that_does_not_cover_the_devices_is_refused(sizes):
  with pytest.raises(InputError, match=r"config\.mesh"):
    meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))


def test_every_parameter_has_a_rule_and_kernels_are_split_on_both_axes(mesh):
  shardings = meshes.param_shardings(abstract_params(CONFIG, jnp.float32), mesh)
  assert shardings["layers"]["attn"]["q"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
  assert shardings["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
  assert shardings["embed"]["weight"].spec == PartitionSpec("tensor", "fsdp")
  assert shardings["final_norm"]["scale"].spec == PartitionSpec()


def test_a_rule_of_ones_own_wins(mesh):
  rules = ((r"embed/weight", (None, "tensor")), *meshes.DEFAULT_RULES)
  shardings = meshes.param_shardings(abstract_params(CONFIG, jnp.float32), mesh, rules)
  assert shardings["embed"]["weight"].spec == PartitionSpec(None, "tensor")


@pytest.mark.parametrize(
  "rules, message",
  [
    ((), "no rule matches parameter"),
    (((".*", ("data", "fsdp", "tensor", None)),), "dimensions, its rule names 4"),
    (((".*scale", ()), (".*", ("fsdp", "fsdp"))), None),
  ],
)
def test_rules_that_cannot_be_are_refused_by_name(mesh, rules, message):
  if message is None:
    odd = {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32)}
    with pytest.raises(InputError, match=r"fsdp=2 does not divide 3 of w"):
      meshes.param_shardings(odd, mesh, rules)
    return
  with pytest.raises(InputError, match=message):
    meshes.param_shardings(abstract_params(CONFIG, jnp.float32), mesh, rules)


@pytest.mark.parametrize(
  "rule, message",
  [
    ("embed/weight", r"'embed/weight' is no rule; give \(expression, axes\)"),
    ((".*",), ".* is no rule; give"),
    ((".*", ("fsdp",), 1), ".* is no rule; give"),
    ((".*", "fsdp"), ".* is no rule; give"),
    ((3, ("fsdp",)), "3 is no regular expression; give a text"),
    (("(", ("fsdp",)), r"'\(' is no regular expression \(.*\); correct it"),
    ((".*", ("model",)), "axis 'model' is unknown; choose None or one of data, fsdp, tensor"),
    ((".*", (("data", "fsdp"),)), r"axis \('data', 'fsdp'\) is unknown; choose"),
    ((".*", ("fsdp", None, "fsdp")), "axis 'fsdp' occurs twice; an axis splits one dimension"),
  ],
)
def test_rules_of_another_form_are_refused_by_number(rule, message):
  with pytest.raises(InputError, match=rf"config\.mesh\.rules\[1\]: {message}"):
    meshes.check_rules((("embed/weight", [None, "fsdp"]), rule))


def test_the_default_rules_and_none_pass_the_check():
  meshes.check_rules(meshes.DEFAULT_RULES)
  meshes.check_rules(())


def test_a_run_checks_its_rules(make_spec):
  with pytest.raises(InputError, match=r"config\.mesh\.rules\[0\]: axis 'model' is unknown"):
    build.build_mesh(make_spec(mesh__rules=((".*", ("model",)),)))


@pytest.mark.parametrize(
  "tx", [optax.adamw(1e-3), optax.adafactor(1e-3), optax.lion(1e-3)], ids=["adamw", "adafactor", "lion"]
)
def test_optimizer_moments_lie_where_their_parameter_lies(mesh, tx):
  params = abstract_params(CONFIG, jnp.float32)
  placed = meshes.param_shardings(params, mesh)
  state = abstract_state(params, tx, seed=0)
  shardings = meshes.state_shardings(state, params, placed, mesh)
  assert shardings.params == placed
  names = [meshes.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
  specs = dict(zip(names, jax.tree.leaves(shardings.opt_state), strict=True))
  moments = [spec.spec for name, spec in specs.items() if name.endswith("mu/layers/attn/q/kernel")]
  assert all(spec == PartitionSpec(None, "fsdp", "tensor") for spec in moments)
  assert moments or isinstance(tx, optax.GradientTransformation)
  assert shardings.step.spec == PartitionSpec()


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


@pytest.mark.parametrize("window", [None, 5])
def test_a_kernel_that_knows_one_device_runs_on_many(mesh, window):
  shapes = [(4, 64, heads, 16) for heads in (4, 2, 2, 4)]
  q, k, v, weight = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
  place = jnp.broadcast_to(jnp.arange(64, dtype=jnp.int32), (4, 64))
  end = jnp.where(place < 30, 64, jnp.where(place < 50, 50, 64)).astype(jnp.int32)
  split = meshes.split_attention(partial(fused_attention, pallas_triton(interpret=True)), mesh)

  def value(attend, *heads):
    output = attend(*heads, end, chunk=32, positions=place, window=window)
    return jnp.sum(weight * output), output

  run = lambda attend: jax.jit(jax.grad(partial(value, attend), (0, 1, 2), has_aux=True))(q, k, v)
  (ours, output), (theirs, expected) = run(split), run(attention)
  assert output.sharding.shard_shape(output.shape) == (1, 64, 2, 16)
  for mine, other in zip((output, *ours), (expected, *theirs), strict=True):
    np.testing.assert_allclose(mine, other, atol=1e-5)
