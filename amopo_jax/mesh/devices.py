"""The mesh of a run: which device stands where, and how programs are compiled for it."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from amopo_jax.types import InputError

AXES = ("data", "fsdp", "context", "tensor")
"""From the axis that needs the slowest links to the one that needs the fastest."""

ROW_AXES = ("data", "fsdp")
"""The axes over which token rows and pairs are split."""

_CPU_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Not XLA's, with which virtual devices may wait for each other forever (docs/decisions/0006)."""

_CPU_SUMS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Not XLA's library for sums, with which nothing fuses (docs/decisions/0008)."""

_FORCED = "--xla_force_host_platform_device_count"

_THREADS_PER_DEVICE = 16  # more than a step has collectives that may wait at the same time; idle ones cost nothing


AnyMesh = Mesh | AbstractMesh
"""Of devices, or of sizes alone."""


def make_mesh(
  *,
  data: int,
  fsdp: int,
  tensor: int,
  context: int = 1,
  slices: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """The mesh of a run.

  Args:
    data, fsdp, tensor, context: devices along each axis; one of them may be -1 and takes what is left.
    slices: parts of the devices between which links are slow; the axis data is split over them first.
    devices: defaults to all devices of all processes.

  Raises:
    InputError: the sizes do not multiply to the number of devices, or the slices do not fit them.
  """
  give_virtual_devices_threads()
  devices = jax.devices() if devices is None else list(devices)
  sizes = axis_sizes(len(devices), data=data, fsdp=fsdp, context=context, tensor=tensor)
  _check_slices(slices, sizes["data"], devices)
  return Mesh(_arrange(slices, tuple(sizes.values()), devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def count_slices(devices: Sequence[jax.Device] | None = None) -> int:
  """In how many slices TPUs lie; devices that do not know are one.

  Args:
    devices: defaults to all devices of all processes.
  """
  return len({_slice_of(device) for device in devices or jax.devices()})


def axis_sizes(num_devices: int, *, data: int, fsdp: int, tensor: int, context: int = 1) -> dict[str, int]:
  """Devices along each axis, of which one may be given as -1.

  Raises:
    InputError: the sizes do not multiply to the number of devices.
  """
  sizes = {"data": data, "fsdp": fsdp, "context": context, "tensor": tensor}
  free = [name for name, size in sizes.items() if size == -1]
  known = int(np.prod([size for size in sizes.values() if size != -1]))
  if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
    raise InputError(f"config.mesh: {sizes}: sizes are positive, at most one is -1; set the others")
  if free and num_devices % known == 0:
    sizes[free[0]] = num_devices // known
  if int(np.prod(list(sizes.values()))) != num_devices:
    raise InputError(
      f"config.mesh: {sizes} does not cover {num_devices} devices; make the product of the axes equal to it"
    )
  return sizes


def ask_for_cpu_devices(count: int) -> None:
  """Makes JAX take the CPU as so many devices, unless the environment says how many; before the first use of any."""
  if jax.config.values["jax_num_cpu_devices"] < 1 and _FORCED not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", count)


def give_virtual_devices_threads() -> None:
  """Many threads per virtual CPU device, by the environment; without effect once the devices are in use.

  A device that waits in a collective holds a thread of XLA's pool, of NPROC: if all are held, none goes on.
  """
  flag = re.search(rf"{_FORCED}=(\d+)", os.environ.get("XLA_FLAGS", ""))
  wanted = max(int(flag[1]) if flag else 0, jax.config.values["jax_num_cpu_devices"])
  if wanted > 1:
    os.environ.setdefault("NPROC", str(max(_THREADS_PER_DEVICE * wanted, os.cpu_count() or 1)))


def jit_for(mesh: Mesh, function: Callable[..., Any], *, is_small: bool = False, **options: Any) -> Callable[..., Any]:
  """`jax.jit` with the compiler options that suit the devices of a mesh.

  Args:
    mesh: of the devices it runs on.
    function: what to compile.
    is_small: most of its time goes into sums over small arrays, as of one token a sequence, where what fuses matters
      less than how fast each of them is (docs/decisions/0019).
    options: of `jax.jit`.
  """
  on_cpu = _CPU_ORDER | ({} if is_small else _CPU_SUMS)
  chosen = on_cpu if mesh.devices.flat[0].platform == "cpu" else None
  return jax.jit(function, compiler_options=chosen, **options)


def row_shards(mesh: AnyMesh) -> int:
  """Number of parts into which token rows are split."""
  return int(np.prod([mesh.shape[axis] for axis in ROW_AXES]))


def vocab_shards(mesh: AnyMesh, vocab_size: int) -> int:
  """In how many equal parts the output embedding's words lie on different devices."""
  return mesh.shape["tensor"] if vocab_size % mesh.shape["tensor"] == 0 else 1


def replicated(mesh: AnyMesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def _check_slices(slices: int, data: int, devices: Sequence[jax.Device]) -> None:
  there = {_slice_of(device) for device in devices} - {None}
  if there and len(there) != slices:
    raise InputError(f"config.mesh.slices={slices}: the devices lie in {len(there)} slices; set it to {len(there)}")
  if slices < 1 or len(devices) % slices:
    raise InputError(f"config.mesh.slices={slices} does not divide {len(devices)} devices; set it to what there is")
  if data % slices:
    raise InputError(
      f"config.mesh.data={data} is no multiple of slices={slices}; slices are replicas, so set data to {slices} or more"
    )


def _slice_of(device: jax.Device) -> int | None:
  """The slice that a TPU lies in; other devices have none, or one per host."""
  return getattr(device, "slice_index", None) if device.platform == "tpu" else None


def _arrange(slices: int, shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
  """Devices [data fsdp context tensor], neighbours close to each other, slice after slice."""
  if slices == 1:
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  if _slice_of(devices[0]) is None:
    return np.asarray(sorted(devices, key=lambda device: (device.process_index, device.id))).reshape(shape)
  within, between = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
  return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
