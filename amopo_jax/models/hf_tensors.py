"""Tensors of a model into safetensors files: which there are, in which file, and the bytes."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_names import Leaf, get_leaf, leaves
from amopo_jax.types import Params

FILE_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
  """One tensor to be written: where it comes from and how large it is.

  Attributes:
    name: in the file.
    leaf: the leaf it is (a layer of).
    layer: which layer, or None if the leaf is not stacked.
    num_bytes: size in the file.
  """

  name: str
  leaf: Leaf
  layer: int | None
  num_bytes: int


def plan_tensors(config: ModelConfig, itemsize: int) -> list[Tensor]:
  """All tensors, layer by layer."""
  tensors = []
  for leaf in leaves(config):
    num_bytes = int(np.prod(leaf.file_shape)) * itemsize
    for layer, name in enumerate(leaf.names):
      tensors.append(Tensor(name=name, leaf=leaf, layer=layer if leaf.is_stacked else None, num_bytes=num_bytes))
  # Stable: what belongs to no layer keeps its place before or after the layers.
  is_end = {"final_norm": 2, "lm_head": 2, "layers": 1, "embed": 0}
  return sorted(tensors, key=lambda tensor: (is_end[tensor.leaf.path[0]], tensor.layer or 0))


def split_tensors(tensors: list[Tensor], max_shard_bytes: int) -> Iterator[list[Tensor]]:
  """Cuts the list where the next tensor would not fit any more."""
  shard: list[Tensor] = []
  for tensor in tensors:
    if shard and sum(other.num_bytes for other in shard) + tensor.num_bytes > max_shard_bytes:
      yield shard
      shard = []
    shard.append(tensor)
  yield shard


def write_shard(file: epath.Path, params: Params, tensors: list[Tensor], dtype: np.dtype) -> None:
  """Writes one safetensors file: length of the header (8 bytes, little endian), header (JSON), tensors.

  By hand, because the library's `save_file` wants all tensors of the file in memory at once.
  Source: the format section of the safetensors README. transformers 4 asks for `"format": "pt"`.
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for tensor in tensors:
    start, end = end, end + tensor.num_bytes
    shape = list(tensor.leaf.file_shape)
    header[tensor.name] = {"dtype": FILE_TYPES[dtype.name], "shape": shape, "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # aligns the first tensor
  with file.open("wb") as stream:
    stream.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
      stream.write(_to_host(tensor, params, dtype).view(np.uint8).data)
    sync(stream)


def _to_host(tensor: Tensor, params: Params, dtype: np.dtype) -> np.ndarray:
  """The tensor as it goes into the file."""
  host = np.asarray(whole_tensor(tensor, params))
  return np.ascontiguousarray((host.T if tensor.leaf.is_transposed else host).astype(dtype, copy=False))


def whole_tensor(tensor: Tensor, params: Params) -> Any:
  """The tensor, whole; a collective of all processes where others hold a part of it."""
  value = get_leaf(params, tensor.leaf.path)
  if not isinstance(value, jax.Array) or value.is_fully_addressable:
    return jax.device_get(value if tensor.layer is None else value[tensor.layer])
  sharding: Any = value.sharding  # of a mesh, as those of several processes are
  take = _gather(sharding.mesh, is_stacked=tensor.layer is not None)
  return take(value, tensor.layer or 0)


@cache
def _gather(mesh: Mesh, *, is_stacked: bool) -> Callable[[jax.Array, int], jax.Array]:
  """Puts a leaf, or a layer of it, onto every device of a mesh."""
  take = lambda leaf, layer: leaf[layer] if is_stacked else leaf
  return jax.jit(take, out_shardings=NamedSharding(mesh, PartitionSpec()))


def sync(stream: Any) -> None:
  """Onto the disk before the directory gets its name; an object store keeps what it has taken."""
  stream.flush()
  try:
    descriptor = stream.fileno()
  except (OSError, AttributeError):
    return
  os.fsync(descriptor)
