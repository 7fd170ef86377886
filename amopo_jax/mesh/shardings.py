"""Rules from parameter names to shardings, and the sharding of everything else in a state.

A rule is a regular expression over the slash-joined parameter path and the axes of that array, first match
wins. Optimizer moments follow the parameter they belong to, and may lie in the memory of the hosts.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax.mesh.devices import AnyMesh, replicated
from amopo_jax.types import InputError

HOST = "pinned_host"
"""Memory of a host from which a device copies by itself."""

RULE_AXES = ("data", "fsdp", "tensor")
"""The axes that a rule may name; parameters are split over context wherever they are over fsdp."""

Rules = Sequence[tuple[str, Sequence[str | None]]]

DEFAULT_RULES: Rules = (
  (r"(embed|lm_head)/weight", ("tensor", "fsdp")),
  (r"layers/attn/[qkv]/kernel", (None, "fsdp", "tensor")),
  (r"layers/attn/[qkv]/bias", (None, "tensor")),
  (r"layers/attn/o/kernel", (None, "tensor", "fsdp")),
  (r"layers/mlp/(gate|up)/kernel", (None, "fsdp", "tensor")),
  (r"layers/mlp/down/kernel", (None, "tensor", "fsdp")),
  (r".*/scale", ()),
)


def check_rules(rules: Any) -> None:
  """Refuses a config's sharding rules that are not (regular expression, axes) pairs.

  Raises:
    InputError: a rule of another form, an expression that does not compile, or an unknown or repeated axis.
  """
  for number, rule in enumerate(rules):
    where = f"config.mesh.rules[{number}]"
    if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[1], tuple | list)):
      raise InputError(f'{where}: {rule!r} is no rule; give (expression, axes), as ("embed/weight", ("tensor", None))')
    pattern, axes = rule
    _check_pattern(where, pattern)
    _check_axes(where, axes)


def param_shardings(params: Any, mesh: AnyMesh, rules: Rules = DEFAULT_RULES) -> Any:
  """The sharding of every parameter, in a tree like `params`.

  Args:
    params: arrays or `jax.ShapeDtypeStruct`s.
    mesh: of `make_mesh`.
    rules: (regular expression, axis or None per dimension); a shorter tuple leaves the rest whole. Where tokens are
      split over context, `fsdp` stands for both axes: a gradient is then summed and scattered over them at once.

  Raises:
    InputError: no rule matches, a rule has too many axes, or an axis does not divide its dimension.
  """

  def place(path: tuple, leaf: Any) -> NamedSharding:
    name = path_name(path)
    axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), None)
    if axes is None:
      raise InputError(f"config.mesh.rules: no rule matches parameter {name}; add one")
    spread = [_spread(axis, mesh) for axis in axes]
    _check_divides(name, leaf.shape, spread, mesh)
    return NamedSharding(mesh, PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in spread)))

  return jax.tree_util.tree_map_with_path(place, params)


def state_shardings(abstract_state: Any, params: Any, shardings: Any, mesh: AnyMesh, *, offload: bool = False) -> Any:
  """Shardings of a whole train state: what mirrors a parameter lies where the parameter lies.

  Args:
    abstract_state: `jax.eval_shape` of the state.
    params: the parameters (abstract), to compare shapes with.
    shardings: of `param_shardings`.
    mesh: where everything else is replicated; may be abstract.
    offload: the optimizer's part of what mirrors a parameter lies in the memory of the hosts.

  Raises:
    InputError: the devices cannot keep arrays there.
  """
  if offload and isinstance(mesh, Mesh):
    _check_offload(mesh)
  flat_params = jax.tree_util.tree_leaves_with_path(params)
  by_name = {
    path_name(path): (leaf.shape, sharding)
    for (path, leaf), sharding in zip(flat_params, jax.tree.leaves(shardings), strict=True)
  }

  def place(path: tuple, leaf: Any) -> NamedSharding:
    parts = path_name(path).split("/")
    for start in range(len(parts)):
      shape, sharding = by_name.get("/".join(parts[start:]), (None, None))
      if sharding is not None and shape == leaf.shape:
        return sharding.with_memory_kind(HOST) if offload and parts[0] == "opt_state" else sharding
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(place, abstract_state)


def path_name(path: tuple) -> str:
  """`layers/attn/q/kernel` for the key path of a leaf."""
  return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _check_pattern(where: str, pattern: Any) -> None:
  if not isinstance(pattern, str):
    raise InputError(f"{where}: {pattern!r} is no regular expression; give a text that matches parameter paths")
  try:
    re.compile(pattern)
  except re.error as error:
    raise InputError(f"{where}: {pattern!r} is no regular expression ({error}); correct it") from None


def _check_axes(where: str, axes: Sequence[Any]) -> None:
  named = [axis for axis in axes if axis is not None]
  for axis in named:
    if axis not in RULE_AXES:
      raise InputError(f"{where}: axis {axis!r} is unknown; choose None or one of {', '.join(RULE_AXES)}")
    if named.count(axis) > 1:
      raise InputError(f"{where}: axis {axis!r} occurs twice; an axis splits one dimension, put None for the other")


def _spread(axis: str | None, mesh: AnyMesh) -> tuple[str, ...]:
  """The mesh's axes that one axis of a rule stands for."""
  if axis == "fsdp" and mesh.shape["context"] > 1:
    return "fsdp", "context"
  return () if axis is None else (axis,)


def _check_divides(name: str, shape: tuple[int, ...], axes: Sequence[tuple[str, ...]], mesh: AnyMesh) -> None:
  if len(axes) > len(shape):
    raise InputError(f"config.mesh.rules: {name} has {len(shape)} dimensions, its rule names {len(axes)}")
  for size, names in zip(shape, axes, strict=False):
    if size % int(np.prod([mesh.shape[axis] for axis in names])):
      parts = " × ".join(f"{axis}={mesh.shape[axis]}" for axis in names)
      raise InputError(f"config.mesh.{parts} does not divide {size} of {name} {shape}; choose another split")


def _check_offload(mesh: Mesh) -> None:
  device = mesh.devices.flat[0]
  kinds = [memory.kind for memory in device.addressable_memories()]
  if HOST not in kinds:
    raise InputError(
      f"config.optim.offload: {device.platform} devices have no memory of the kind {HOST}, only {', '.join(kinds)}; "
      "set it to False"
    )
