"""Adapters and quantized kernels lie where their kernel does, and a mesh that cuts tiles is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec, SingleDeviceSharding

from amopo_jax import mesh as meshes
from amopo_jax.lora import split_params
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.transformer import abstract_params
from amopo_jax.run_spec import LoraSpec
from amopo_jax.types import InputError

CONFIG = ModelConfig(
  architecture="LlamaForCausalLM",
  vocab_size=64,
  width=64,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=32,
  mlp_width=128,
)
ALL = r"layers/.*/kernel"


def split(lora, config=CONFIG, **sizes):
  mesh = meshes.make_mesh(**({"data": 1, "fsdp": 1, "tensor": 1} | sizes))
  placed = meshes.param_shardings(abstract_params(config, jnp.float32), mesh)
  return split_params(lora, config, jnp.float32, placed)


def test_adapters_are_split_along_the_side_that_is_not_their_rank():
  found = split(LoraSpec(4, 8.0, "", ALL), fsdp=4, tensor=2).placed["layers"]
  specs = lambda layer: (layer["lora_a"].spec, layer["lora_b"].spec)
  assert specs(found["attn"]["q"]) == (PartitionSpec(None, "fsdp", None), PartitionSpec(None, None, "tensor"))
  assert specs(found["mlp"]["down"]) == (PartitionSpec(None, "tensor", None), PartitionSpec(None, None, "fsdp"))


def test_fsdp_splits_the_outputs_of_a_quantized_kernel_and_tensor_what_it_splits_anyway():
  base = split(LoraSpec(4, 8.0, "nf4", ALL), fsdp=4, tensor=2).base["layers"]
  for part in ("qvalue", "scale"):
    assert base["mlp"]["gate"]["kernel"][part].sharding.spec == PartitionSpec(None, None, ("tensor", "fsdp"))
    assert base["attn"]["o"]["kernel"][part].sharding.spec == PartitionSpec(None, ("tensor",), ("fsdp",))
  assert base["attn"]["q"]["kernel"]["scale"].shape == (2, 1, 128)
  assert base["attn_norm"]["scale"].sharding.spec == PartitionSpec()


def test_the_base_in_floats_lies_where_the_model_does():
  found = split(LoraSpec(4, 8.0, "bfloat16", ALL), fsdp=8)
  assert found.base["layers"]["attn"]["q"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp", "tensor")
  assert found.base["layers"]["attn"]["q"]["kernel"].dtype == jnp.bfloat16
  assert found.base["embed"]["weight"].dtype == found.params["layers"]["attn"]["q"]["lora_a"].dtype == jnp.float32


def test_a_single_device_holds_everything():
  here = SingleDeviceSharding(jax.devices()[1])
  placed = jax.tree.map(lambda _: here, abstract_params(CONFIG, jnp.float32))
  found = split_params(LoraSpec(4, 8.0, "int8", ALL), CONFIG, jnp.float32, placed)
  assert all(leaf.sharding == here for leaf in jax.tree.leaves(found.base))
  assert set(jax.tree.leaves(found.placed)) == {here}


@pytest.mark.parametrize(
  "sizes, message",
  [
    (
      {"tensor": 8},
      r"config\.mesh\.tensor=8 cuts the tiles of 64 inputs of the quantized layers/attn/o/kernel \(128, 64\)",
    ),
    (
      {"fsdp": 8},
      r"config\.mesh: tensor \* fsdp = 8 does not divide the outputs of the quantized layers/attn/k/kernel",
    ),
  ],
)
def test_a_mesh_that_cuts_tiles_or_outputs_is_refused(sizes, message):
  config = dataclasses.replace(CONFIG, num_kv_heads=1, head_dim=4 if "fsdp" in sizes else 32)
  config = dataclasses.replace(config, num_kv_heads=4) if "tensor" in sizes else config
  with pytest.raises(InputError, match=message + r".*; choose another split, or config\.lora\.base_dtype=bfloat16"):
    split(LoraSpec(1, 8.0, "nf4", ALL), config, **sizes)


def test_without_adapters_everything_is_trained_and_nothing_frozen():
  found = split(LoraSpec(0, 16.0, "", ALL), fsdp=8)
  assert found.base is None
  assert found.join(found.params, None) is found.params
  assert found.placed["layers"]["attn"]["q"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
