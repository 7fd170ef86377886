"""Where arrays live: a mesh of three axes and rules from parameter names to shardings.

    data    replicas of the parameters; each sees other rows
    fsdp    rows and parameters are split; parameters are gathered where they are used
    tensor  heads, MLP columns and vocabulary are split

A rule is a regular expression over the slash-joined parameter path and the axes of that array, first match
wins. Optimizer moments follow the parameter they belong to.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from amopo_jax.types import Batch, InputError

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")
"""The axes over which token rows and pairs are split."""

_CPU_OPTIONS = {
  "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
  "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}
"""Not XLA's order, with which virtual devices may wait for each other forever, nor its library for sums, with which
nothing fuses (docs/decisions/0006, 0008)."""

_THREADS_PER_DEVICE = 16  # more than a step has collectives that may wait at the same time; idle ones cost nothing

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


def make_mesh(*, data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of a run.

  Args:
    data, fsdp, tensor: devices along each axis; one of them may be -1 and takes what is left.
    devices: defaults to all devices of all processes.

  Raises:
    InputError: the sizes do not multiply to the number of devices.
  """
  give_virtual_devices_threads()
  devices = jax.devices() if devices is None else list(devices)
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  free = [name for name, size in sizes.items() if size == -1]
  known = int(np.prod([size for size in sizes.values() if size != -1]))
  if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
    raise InputError(f"config.mesh: {sizes}: sizes are positive, at most one is -1; set the others")
  if free and len(devices) % known == 0:
    sizes[free[0]] = len(devices) // known
  if int(np.prod(list(sizes.values()))) != len(devices):
    raise InputError(
      f"config.mesh: {sizes} does not cover {len(devices)} devices; make the product of the axes equal to it"
    )
  return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def give_virtual_devices_threads() -> None:
  """Many threads per virtual CPU device, by the environment; without effect once the devices are in use.

  A device that waits in a collective holds a thread of XLA's pool, of NPROC: if all are held, none goes on.
  """
  flag = re.search(r"--xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
  wanted = max(int(flag[1]) if flag else 0, jax.config.values["jax_num_cpu_devices"])
  if wanted > 1:
    os.environ.setdefault("NPROC", str(max(_THREADS_PER_DEVICE * wanted, os.cpu_count() or 1)))


def jit_for(mesh: Mesh, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`jax.jit` with the compiler options that suit the devices of a mesh."""
  chosen = _CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None
  return jax.jit(function, compiler_options=chosen, **options)


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


def row_shards(mesh: Mesh) -> int:
  """Number of parts into which token rows are split."""
  return int(np.prod([mesh.shape[axis] for axis in ROW_AXES]))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
  """Puts a host batch onto the devices: rows over data and fsdp, and pairs too where they divide.

  Args:
    batch: this process's part, numpy.
    mesh: of `make_mesh`.
  """
  split = NamedSharding(mesh, PartitionSpec(None, ROW_AXES))
  whole = split if batch.index.shape[1] % row_shards(mesh) == 0 else replicated(mesh)
  put = lambda sharding, part: jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), part)
  return Batch(put(split, batch.rows), put(whole, batch.pairs), put(whole, batch.index))


def param_shardings(params: Any, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Any:
  """The sharding of every parameter, in a tree like `params`.

  Args:
    params: arrays or `jax.ShapeDtypeStruct`s.
    mesh: of `make_mesh`.
    rules: (regular expression, axis or None per dimension); a shorter tuple leaves the rest whole.

  Raises:
    InputError: no rule matches, a rule has too many axes, or an axis does not divide its dimension.
  """

  def place(path: tuple, leaf: Any) -> NamedSharding:
    name = path_name(path)
    axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), None)
    if axes is None:
      raise InputError(f"config.mesh.rules: no rule matches parameter {name}; add one")
    _check_divides(name, leaf.shape, axes, mesh)
    return NamedSharding(mesh, PartitionSpec(*axes))

  return jax.tree_util.tree_map_with_path(place, params)


def state_shardings(abstract_state: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
  """Shardings of a whole train state: what mirrors a parameter lies where the parameter lies.

  Args:
    abstract_state: `jax.eval_shape` of the state.
    params: the parameters (abstract), to compare shapes with.
    shardings: of `param_shardings`.
    mesh: where everything else is replicated.
  """
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
        return sharding
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(place, abstract_state)


def make_constrain(mesh: Mesh):
  """The hook by which the model, which knows no mesh, keeps its activations where they belong.

  Returns:
    `constrain(x, kind)`, kind "residual" for hidden states, rows first, or "head_weight" for the output
    embedding, gathered over fsdp before the head's loop.
  """
  specs = {"residual": PartitionSpec(ROW_AXES), "head_weight": PartitionSpec("tensor")}

  def constrain(x: jax.Array, kind: str) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, specs[kind]))

  return constrain


def split_attention(attend: Callable[..., jax.Array], mesh: Mesh) -> Callable[..., jax.Array]:
  """Runs an attention that knows one device on many: rows over data and fsdp, heads over tensor.

  Args:
    attend: (q, k, v, subtree_end, positions=…, **static) -> heads' outputs; rows and heads are independent.
    mesh: whose tensor axis divides the key heads, and whose other axes divide the rows.

  Returns:
    The same on whole arrays.
  """
  heads, tokens = PartitionSpec(ROW_AXES, None, "tensor"), PartitionSpec(ROW_AXES)

  def attended(
    q: jax.Array, k: jax.Array, v: jax.Array, subtree_end: jax.Array, *, positions: jax.Array, **static: Any
  ) -> jax.Array:
    one = lambda q, k, v, end, positions: attend(q, k, v, end, positions=positions, **static)
    # The kernels do not say over which axes their results vary, so that this cannot be checked.
    split = jax.shard_map(
      one, mesh=mesh, in_specs=(heads, heads, heads, tokens, tokens), out_specs=heads, check_vma=False
    )
    return split(q, k, v, subtree_end, positions)

  return attended


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
    if axis not in AXES:
      raise InputError(f"{where}: axis {axis!r} is unknown; choose None or one of {', '.join(AXES)}")
    if named.count(axis) > 1:
      raise InputError(f"{where}: axis {axis!r} occurs twice; an axis splits one dimension, put None for the other")


def _check_divides(name: str, shape: tuple[int, ...], axes: Sequence[str | None], mesh: Mesh) -> None:
  if len(axes) > len(shape):
    raise InputError(f"config.mesh.rules: {name} has {len(shape)} dimensions, its rule names {len(axes)}")
  for size, axis in zip(shape, axes, strict=False):
    if axis is not None and size % mesh.shape[axis]:
      raise InputError(
        f"config.mesh.{axis}={mesh.shape[axis]} does not divide {size} of {name} {shape}; choose another split"
      )


def vocab_shards(mesh: Mesh, vocab_size: int) -> int:
  """In how many equal parts the output embedding's words lie on different devices."""
  return mesh.shape["tensor"] if vocab_size % mesh.shape["tensor"] == 0 else 1
