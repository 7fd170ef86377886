"""Memory and cost of a step by formula, for chips without a compiler here: GPUs.

State and batch are exact. What lies between is what must: all gradients at once, what each layer keeps for its
backward pass, twice the activations of the layer at work, its gathered parameters and their gradient, and the head's.
A real compiler may need less or more; for TPUs it is asked instead.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_step import build_optimizer, place_params, place_state
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.head import GPU_BLOCK_LOGITS
from amopo_jax.models.transformer import abstract_params
from amopo_jax.plan.ahead import Memory, abstract_batch, bytes_per_chip
from amopo_jax.plan.chips import GPU_SHARE, GPUS_PER_NODE, Chip
from amopo_jax.plan.collectives import Collective
from amopo_jax.plan.cost import Cost
from amopo_jax.plan.estimate import backward_passes, passes
from amopo_jax.run_spec import RunSpec

_FORWARD_AGAIN = ("save_attention", "full")
"""Remat policies under which the backward pass runs a layer's products once more."""


def granted(chip: Chip) -> int:
  """Bytes of a GPU's memory that a run gets."""
  return round(GPU_SHARE * chip.memory)


def formula_memory(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh) -> Memory:
  """Bytes on one GPU.

  Args:
    spec: the config.
    config: the decoder.
    mesh: of sizes alone.

  Raises:
    InputError: the mesh does not divide the parameters.
  """
  split = place_params(spec, config, mesh)[1]
  target = place_state(spec, split, mesh, build_optimizer(spec, 1)[0])
  batch = abstract_batch(spec, mesh, len(spec.data.contexts))
  parameters, optimizer, base, rows = map(bytes_per_chip, (target.params, target.opt_state, split.base, batch))
  gradients = parameters * (backward_passes(spec) * (2 if spec.batch.accumulation > 1 else 1))
  activations = round(_activations(spec, config, mesh))
  temporaries = gradients + activations + round(_gathered(spec, config, mesh))
  arguments = parameters + optimizer + base + rows
  needed = arguments + temporaries
  host = bytes_per_chip(target.opt_state, on_host=True)
  return Memory(parameters, optimizer, base, rows, arguments, temporaries, needed, None, activations, gradients, host)


def formula_cost(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh, scored_share: float) -> Cost:
  """Operations and bytes of one step on one GPU that no compiler can avoid.

  Args:
    spec: the config.
    config: the decoder.
    mesh: of sizes alone.
    scored_share: of the tokens, those that the head takes.
  """
  tokens, asked = spec.batch.rows * spec.batch.row_length, passes(spec)
  again = 1 if spec.model.remat in _FORWARD_AGAIN else 0
  back = backward_passes(spec)
  layers = (1 + back * (asked - 1 + again)) * 2 * tokens * config.num_layers * _layer_size(config)
  head = (1 + back * asked) * 2 * tokens * scored_share * config.width * config.vocab_size
  trained, parts = _count(place_params(spec, config, mesh)[1].params), mesh.size // mesh.shape["data"]
  update = (4 + 3) * 4 * trained / parts  # parameters, two moments and gradients are read, three are written
  # The GPUs of a node fetch each part from another node once, and share its adapters; replicas that lie in other nodes
  # have nobody to share with.
  shared = 1 / GPUS_PER_NODE if parts > GPUS_PER_NODE else 0.0
  replicas = min(parts / GPUS_PER_NODE, 1.0) if mesh.size > GPUS_PER_NODE else 0.0
  sent, sums = _sent(spec, config, trained, mesh), _sums_over_tensor(spec, config, mesh)
  network = {"all-gather": shared, "reduce-scatter": shared, "all-reduce": replicas}
  beyond = {kind: amount * network[kind] for kind, amount in sent.items()}
  sent["all-reduce"] += sums  # within a node, whose fastest links are those of this axis
  collectives = {kind: Collective(0, amount, beyond[kind]) for kind, amount in sent.items() if amount}
  return Cost((layers + head) / mesh.size, update, collectives)


def _sent(spec: RunSpec, config: ModelConfig, trained: int, mesh: meshes.AnyMesh) -> dict[str, float]:
  """Bytes that a GPU sends along all axes but `tensor`: the table of docs/parallelism.md with the factors (n − 1)/n."""
  parts, context = mesh.shape["fsdp"] * mesh.shape["context"], mesh.shape["context"]
  share, compute = (1 - 1 / parts) / mesh.shape["tensor"], _itemsize(spec.model.compute_dtype)
  tokens = spec.batch.rows // spec.batch.accumulation // meshes.row_shards(mesh) * spec.batch.row_length
  both = 2 * config.num_layers * config.num_kv_heads * config.head_dim / mesh.shape["tensor"]  # keys and values
  seen = (1 - 1 / context) * compute * tokens * both
  again = 2 if spec.model.remat in _FORWARD_AGAIN else 1
  replicas = 1 - 1 / mesh.shape["data"]
  sent = {
    "all-gather": 2 * share * _count(abstract_params(config, jnp.float32)) * compute + again * seen,
    "reduce-scatter": share * trained * compute + seen,
    "all-reduce": 2 * replicas * trained * compute / parts / mesh.shape["tensor"],
  }
  return {kind: spec.batch.accumulation * amount for kind, amount in sent.items()}


def _sums_over_tensor(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh) -> float:
  """Bytes that a GPU sends for the sums over `tensor` in the layers; those of the head are numbers per token.

  Two a layer forward, after the attention and after the MLP, and two backward; where the backward pass computes a layer
  again, it needs the first of them again.
  """
  tokens = spec.batch.rows // meshes.row_shards(mesh) * spec.batch.row_length / mesh.shape["context"]
  sums = 4 + (1 if spec.model.remat in _FORWARD_AGAIN else 0)
  width = config.width * _itemsize(spec.model.compute_dtype)
  return 2 * (1 - 1 / mesh.shape["tensor"]) * config.num_layers * sums * tokens * width


def _activations(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh) -> float:
  """What all layers keep, and the layer at work."""
  tokens = spec.batch.rows // spec.batch.accumulation // meshes.row_shards(mesh) * spec.batch.row_length
  tokens /= mesh.shape["context"]
  tensor, width = mesh.shape["tensor"], config.width
  heads, keys = config.num_heads * config.head_dim / tensor, config.num_kv_heads * config.head_dim / tensor
  mlp = config.mlp_width / tensor
  projections, attention = heads + 2 * keys + 2 * width + 2 * mlp, heads
  everything = 2 * projections + attention + 2 * width + mlp
  kept = {
    "full": 0.0,
    "save_attention": attention,
    "dots_no_batch": projections,
    "dots": projections + attention,
    "none": everything,
  }[spec.model.remat]
  return tokens * _itemsize(spec.model.compute_dtype) * (config.num_layers * (width + kept) + 2 * everything)


def _gathered(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh) -> float:
  """Parameters of two layers and of the head in the compute type, the gradient of one layer, and the head's."""
  layer = _layer_size(config) / mesh.shape["tensor"]
  words = config.vocab_size / mesh.shape["tensor"]
  compute, stored = _itemsize(spec.model.compute_dtype), _itemsize(spec.model.param_dtype)
  block = min(spec.model.head_chunk * words, GPU_BLOCK_LOGITS) * (4 + compute)  # logits, and their gradient
  return layer * (2 * compute + stored) + config.width * words * (compute + 4) + block + spec.model.head_keep * 2**30


def _layer_size(config: ModelConfig) -> int:
  """Entries of a layer's kernels."""
  inner, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
  return config.width * (2 * inner + 2 * keys + 3 * config.mlp_width)


def _count(tree: Any) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _itemsize(dtype: str) -> int:
  return jnp.dtype(build.DTYPES[dtype]).itemsize
