"""Tensors of a model into safetensors files: which there are, in which file, and the bytes."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_names import Leaf, get_leaf, leaves
from amopo_jax.models.hf_parts import COPIERS, convert
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


class _Part(NamedTuple):
  """Of a tensor: its place among the axes of the leaf (without that of the layers), and how to fetch it."""

  where: tuple[Any, ...]
  read: Callable[[], Any]


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


class Behind:
  """Does what it is told in a thread of its own, in order and one thing behind: an error comes with the next call."""

  def __init__(self):
    self._thread = ThreadPoolExecutor(1)
    self._last = self._thread.submit(lambda: None)

  def __enter__(self) -> "Behind":
    return self

  def __exit__(self, *error: object) -> None:
    self._thread.shutdown()  # after what it was told last

  def do(self, work: Callable[..., Any], *args: Any) -> None:
    """Waits for what it was told before, then begins."""
    self._last.result()
    self._last = self._thread.submit(work, *args)

  def finish(self) -> None:
    """Waits for all."""
    self._last.result()


def write_shard(file: epath.Path, params: Params, tensors: list[Tensor], dtype: np.dtype, behind: Behind) -> None:
  """Writes one safetensors file: length of the header (8 bytes, little endian), header (JSON), tensors.

  By hand, because the library's `save_file` wants all tensors of the file in memory at once.
  Source: the format section of the safetensors README. transformers 4 asks for `"format": "pt"`.

  Args:
    file: where to.
    params: of all.
    tensors: of the file, in order.
    dtype: in the file.
    behind: writes a tensor while the next one is fetched, and closes the file while the next one begins.
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for tensor in tensors:
    start, end = end, end + tensor.num_bytes
    shape = list(tensor.leaf.file_shape)
    header[tensor.name] = {"dtype": FILE_TYPES[dtype.name], "shape": shape, "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # aligns the first tensor
  # Two in turn, used again: memory that is new costs as much as a copy.
  buffers = itertools.cycle([np.empty(max(tensor.num_bytes for tensor in tensors), np.uint8) for _ in range(2)])
  stream = file.open("wb")
  behind.do(stream.write, len(text).to_bytes(8, "little") + text)
  for tensor, buffer in zip(tensors, buffers, strict=False):
    _to_host(tensor, params, buffer[: tensor.num_bytes].view(dtype))
    behind.do(stream.write, buffer[: tensor.num_bytes].data)
  behind.do(_close, stream)


def lend_shard(params: Params, tensors: list[Tensor]) -> None:
  """Takes part in what `write_shard` asks of all processes, where another one writes the file."""
  for tensor in tensors:
    jax.block_until_ready(whole_tensor(tensor, params))  # one at a time on the devices


def _close(stream: Any) -> None:
  with stream:
    sync(stream)


def _to_host(tensor: Tensor, params: Params, into: np.ndarray) -> None:
  """Fills `into`, which is flat, with the tensor as it goes into the file."""
  host = into.reshape(tensor.leaf.file_shape)
  target = host.T if tensor.leaf.is_transposed else host

  def copy(part: _Part) -> None:
    values, place = np.asarray(part.read()).astype(host.dtype, copy=False), target[part.where]
    if tensor.leaf.is_transposed:
      values, place = values.T, place.T  # in the file's order
    convert(place, values)

  list(COPIERS.map(copy, _parts(tensor, params)))


def _parts(tensor: Tensor, params: Params) -> Iterator[_Part]:
  """What the devices hold of a tensor, each part once; of several processes' the whole."""
  value = get_leaf(params, tensor.leaf.path)
  if not isinstance(value, jax.Array) or not value.is_fully_addressable:
    whole = whole_tensor(tensor, params)
    yield _Part((...,), lambda: whole)
    return
  for shard in value.addressable_shards:
    if shard.replica_id:
      continue
    if tensor.layer is None:
      yield _Part(shard.index, lambda shard=shard: shard.data)
      continue
    layer = tensor.layer - (shard.index[0].start or 0)
    if 0 <= layer < shard.data.shape[0]:
      yield _Part(shard.index[1:], lambda shard=shard, layer=layer: _layer_of(shard.data, layer))


def _layer_of(shard: jax.Array, layer: int) -> Any:
  """A layer of a device's part of a leaf; of a CPU's, whose memory is the host's, without a copy."""
  if next(iter(shard.devices())).platform == "cpu":
    return np.asarray(shard)[layer]
  return _cut_layer(shard, layer)


_cut_layer = jax.jit(lambda leaf, layer: jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False))


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
