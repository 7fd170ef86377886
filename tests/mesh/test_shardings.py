import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.mesh import shardings as module
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.transformer import abstract_params
from amopo_jax.state import abstract_state
from amopo_jax.types import InputError

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


def test_over_context_parameters_are_split_as_over_fsdp():
  mesh = meshes.make_mesh(data=1, fsdp=2, context=2, tensor=2)
  shardings = meshes.param_shardings(abstract_params(CONFIG, jnp.float32), mesh)
  assert shardings["layers"]["attn"]["q"]["kernel"].spec == PartitionSpec(None, ("fsdp", "context"), "tensor")
  assert shardings["layers"]["attn"]["q"]["bias"].spec == PartitionSpec(None, "tensor")
  assert shardings["final_norm"]["scale"].spec == PartitionSpec()
  odd = abstract_params(dataclasses.replace(CONFIG, width=18), jnp.float32)
  with pytest.raises(
    InputError, match=r"config\.mesh\.fsdp=2 × context=2 does not divide 18 of embed/weight \(64, 18\)"
  ):
    meshes.param_shardings(odd, mesh)


def test_a_rule_names_fsdp_for_both():
  with pytest.raises(InputError, match="axis 'context' is unknown; choose None or one of data, fsdp, tensor"):
    meshes.check_rules(((".*", ("context",)),))


@pytest.mark.parametrize("tx", [optax.adamw(1e-3), optax.adafactor(1e-3)], ids=["adamw", "adafactor"])
def test_offloaded_moments_lie_in_the_memory_of_the_hosts_and_nothing_else_does(mesh, tx):
  params = abstract_params(CONFIG, jnp.float32)
  placed = meshes.param_shardings(params, mesh)
  state = abstract_state(params, tx, seed=0)
  near = meshes.state_shardings(state, params, placed, mesh)
  far = meshes.state_shardings(state, params, placed, mesh, offload=True)
  assert (far.params, far.step, far.rng) == (near.params, near.step, near.rng)
  shapes = {meshes.path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
  for (path, leaf), sharding, other in zip(
    jax.tree_util.tree_leaves_with_path(state.opt_state),
    *map(jax.tree.leaves, (far.opt_state, near.opt_state)),
    strict=True,
  ):
    mirrored = any(meshes.path_name(path).endswith(name) and shape == leaf.shape for name, shape in shapes.items())
    assert sharding.memory_kind == (meshes.HOST if mirrored else other.memory_kind)
    assert sharding.spec == other.spec


def test_devices_without_such_a_memory_are_refused(mesh, monkeypatch):
  monkeypatch.setattr(module, "HOST", "cellar")
  state = abstract_state(abstract_params(CONFIG, jnp.float32), optax.lion(1e-3), seed=0)
  placed = meshes.param_shardings(state.params, mesh)
  with pytest.raises(
    InputError, match=r"config\.optim\.offload: cpu devices have no memory of the kind cellar, only device"
  ):
    meshes.state_shardings(state, state.params, placed, mesh, offload=True)
