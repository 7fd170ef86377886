"""Where adapters and a quantized base lie: each where the rules of the mesh put the kernel it belongs to.

    kernel [L in out]           as config.mesh.rules and mesh.DEFAULT_RULES say
    lora_a [L in r]             in as the kernel's, r whole
    lora_b [L r out]            out as the kernel's, r whole
    qvalue, scale               as the kernel, but what splits its inputs besides `tensor` splits the outputs instead

Inputs are cut into tiles that share a scale, outputs are not: so FSDP needs no whole tiles, whatever its devices.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from amopo_jax.models.hf_names import Leaf, get_leaf, set_leaf
from amopo_jax.models.quantized import tile_size
from amopo_jax.types import InputError, Params

_KEPT = ("tensor",)
"""Axes that split a product over its inputs, and so stay with them."""


def adapter_shardings(targets: Iterable[Leaf], placed: Any) -> Params:
  """Shardings of the adapters.

  Args:
    targets: kernels that have some.
    placed: shardings of the whole parameters.
  """
  beside: Params = {}
  for leaf in targets:
    kernel = get_leaf(placed, leaf.path)
    layers, inputs, outputs = _axes(kernel)
    set_leaf(beside, (*leaf.path[:-1], "lora_a"), _with_axes(kernel, (layers, inputs, ())))
    set_leaf(beside, (*leaf.path[:-1], "lora_b"), _with_axes(kernel, (layers, (), outputs)))
  return beside


def base_shardings(kernels: Iterable[Leaf], placed: Any) -> Params:
  """Shardings of a base with quantized kernels.

  Args:
    kernels: all of them.
    placed: shardings of the whole parameters.

  Raises:
    InputError: a mesh over which tiles or outputs do not divide.
  """
  shardings = jax.tree.map(lambda sharding: sharding, placed)
  for leaf in kernels:
    sharding = _quantized_sharding(leaf, get_leaf(placed, leaf.path))
    set_leaf(shardings, leaf.path, {"qvalue": sharding, "scale": sharding})
  return shardings


def _quantized_sharding(leaf: Leaf, sharding: Any) -> Any:
  if not isinstance(sharding, NamedSharding):
    return sharding
  layers, inputs, outputs = _axes(sharding)
  kept = tuple(name for name in inputs if name in _KEPT)
  moved = (*outputs, *(name for name in inputs if name not in _KEPT))
  parts = lambda names: math.prod(sharding.mesh.shape[name] for name in names)
  where, tile = f"the quantized {'/'.join(leaf.path)} {leaf.shape[1:]}", tile_size(leaf.shape[1])
  remedy = "choose another split, or config.lora.base_dtype=bfloat16"
  if leaf.shape[1] // tile % parts(kept):
    raise InputError(f"config.mesh.tensor={parts(kept)} cuts the tiles of {tile} inputs of {where}; {remedy}")
  if leaf.shape[2] % parts(moved):
    over = " * ".join(moved)
    raise InputError(f"config.mesh: {over} = {parts(moved)} does not divide the outputs of {where}; {remedy}")
  return _with_axes(sharding, (layers, kept, moved))


def _axes(sharding: Any) -> tuple[tuple[str, ...], ...]:
  """The names of the mesh axes of a kernel's layers, inputs and outputs."""
  spec = (*sharding.spec, None, None, None)[:3] if isinstance(sharding, NamedSharding) else (None,) * 3
  return tuple(() if axis is None else (axis,) if isinstance(axis, str) else tuple(axis) for axis in spec)


def _with_axes(sharding: Any, axes: tuple[tuple[str, ...], ...]) -> Any:
  if not isinstance(sharding, NamedSharding):
    return sharding
  return NamedSharding(
    sharding.mesh, PartitionSpec(*(names or None for names in axes)), memory_kind=sharding.memory_kind
  )
