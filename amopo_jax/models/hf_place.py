"""Parameters out of files onto devices.

A file has its tensors row by row. A process whose devices hold columns of a tensor, as most kernels are split, would
have to read all rows for them; so where there are several, each reads some rows and the devices exchange them.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from amopo_jax.models.hf_files import Views
from amopo_jax.models.hf_names import Leaf
from amopo_jax.models.hf_parts import Bounds, read_parts
from amopo_jax.models.quantized import abstract_quantized, quantize

_HELD_BYTES = 1 << 30
"""Of the parts of one parameter that the host holds at a time, where it is several."""


def place(leaf: Leaf, views: Views, dtype: np.dtype, sharding: Sharding) -> jax.Array:
  """A parameter under its sharding.

  Args:
    leaf: which.
    views: of the files.
    dtype: of the array; the files may have another.
    sharding: of the array.
  """
  by_rows = by_file_rows(leaf, sharding) if jax.process_count() > 1 else None
  if by_rows is None:
    return _read(leaf, views, dtype, sharding)
  exchange = jax.jit(lambda array: array, out_shardings=sharding, donate_argnums=0)
  return exchange(_read(leaf, views, dtype, by_rows))


def by_file_rows(leaf: Leaf, sharding: Sharding) -> NamedSharding | None:
  """The parameter split along the rows of its tensors in the file, over as many devices as divide them.

  None where that gains nothing or cannot be: vectors, and rows that no axis of the mesh divides.
  """
  axis = len(leaf.shape) - 1 if leaf.is_transposed else len(leaf.shape) - len(leaf.file_shape)
  if not isinstance(sharding, NamedSharding) or len(leaf.file_shape) < 2:
    return None
  names = _dividing(leaf.shape[axis], dict(sharding.mesh.shape))
  if not names:
    return None
  axes: list[tuple[str, ...] | None] = [None] * len(leaf.shape)
  axes[axis] = names
  return NamedSharding(sharding.mesh, PartitionSpec(*axes), memory_kind=sharding.memory_kind)


def _dividing(rows: int, sizes: Mapping[str, int]) -> tuple[str, ...]:
  """The axes of a mesh that together split these rows evenly into the most parts; () if there are none."""
  kept = [name for name, size in sizes.items() if size > 1]
  some = [names for count in range(len(kept) + 1) for names in itertools.combinations(kept, count)]
  parts = lambda names: math.prod(sizes[name] for name in names)
  return max((names for names in some if rows % parts(names) == 0), key=parts)


def _read(leaf: Leaf, views: Views, dtype: np.dtype, sharding: Sharding) -> jax.Array:
  """Reads each distinct part of a leaf once, and puts it onto every device that holds it.

  Not `jax.make_array_from_callback`: it holds the parts of all local devices before it places the first.
  """
  arrays: list[jax.Array] = []
  holders = _holders(leaf, sharding)
  for some in _held_together(list(holders), dtype.itemsize):
    parts = read_parts(leaf, views, dtype, some)
    while parts:  # each is forgotten once it is placed
      arrays += _put(parts.pop(), holders[some.pop()], sharding.memory_kind)
  return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)


def _held_together(parts: list[Bounds], itemsize: int) -> Iterator[list[Bounds]]:
  """Cuts a list of parts where the host would hold too much of them; one part it has to hold."""
  some: list[Bounds] = []
  held = 0
  for bounds in parts:
    size = math.prod(stop - start for start, stop in bounds) * itemsize
    if some and held + size > _HELD_BYTES:
      yield some
      some, held = [], 0
    some.append(bounds)
    held += size
  yield some


def place_quantized(leaf: Leaf, views: Views, name: str, shardings: Any) -> dict[str, jax.Array]:
  """Like `_place`, but each part is quantized on a device that holds it, one layer at a time."""
  whole = shardings if isinstance(shardings, Sharding) else shardings["qvalue"]
  arrays: dict[str, list[jax.Array]] = {}
  for bounds, devices in _holders(leaf, whole).items():
    layers = []
    for layer in range(*bounds[0]):
      (floats,) = read_parts(leaf, views, np.dtype(np.float32), [((layer, layer + 1), *bounds[1:])])
      layers.append(_quantize(jax.device_put(floats, devices[0]), name))
    for key, part in jax.tree.map(lambda *parts: jnp.concatenate(parts), *layers).items():
      arrays.setdefault(key, []).extend(_put(part, devices, whole.memory_kind))
  shapes = abstract_quantized(leaf.shape, name)
  return {
    key: jax.make_array_from_single_device_arrays(shape.shape, whole, arrays[key]) for key, shape in shapes.items()
  }


_quantize = jax.jit(quantize, static_argnums=1)


def _holders(leaf: Leaf, sharding: Sharding) -> dict[Bounds, list[jax.Device]]:
  """The distinct parts of a leaf, and the devices that hold each."""
  holders: dict[Bounds, list[jax.Device]] = {}
  for device, index in sharding.addressable_devices_indices_map(leaf.shape).items():
    bounds = tuple(part.indices(size)[:2] for part, size in zip(index or (), leaf.shape, strict=True))
    holders.setdefault(bounds, []).append(device)
  return holders


def _put(part: np.ndarray | jax.Array, devices: list[jax.Device], memory_kind: str | None) -> list[jax.Array]:
  """Puts the same part onto several devices and waits, so that the host can forget it."""
  places = [SingleDeviceSharding(device, memory_kind=memory_kind) for device in devices]
  return jax.block_until_ready([jax.device_put(part, place) for place in places])
