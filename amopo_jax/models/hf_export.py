"""Parameters into a Hugging Face model directory that transformers and vLLM load.

Several processes write one directory: each its share of the files, the first one what describes them.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_files import CONFIG, INDEX, SINGLE
from amopo_jax.models.hf_names import Leaf, get_leaf, leaves
from amopo_jax.types import InputError, Params

_FILE_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


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


class Crew(NamedTuple):
  """The processes that write a directory together.

  Attributes:
    index: of this one.
    size: how many.
    meet: returns when all have called it.
  """

  index: int
  size: int
  meet: Callable[[], None]


ALONE = Crew(0, 1, lambda: None)


def save_model(
  params: Params,
  config: ModelConfig,
  hf_config: dict[str, Any],
  out_dir: str | os.PathLike[str],
  *,
  dtype: jax.typing.DTypeLike,
  max_shard_bytes: int = 5_000_000_000,
  add_files: Callable[[epath.Path], None] | None = None,
  crew: Crew = ALONE,
) -> None:
  """Writes safetensors, their index where there are several, and `config.json`.

  Everything is written into a directory beside `out_dir`, which is renamed at the end: a directory of that
  name is complete or not there. Object stores rename nothing; there `config.json`, without which nobody takes a
  directory for a model, comes last. The tensors stream: the host, and each device, holds one at a time.

  Args:
    params: the parameter tree, in jax arrays of all processes, or numpy arrays.
    config: its hyper-parameters.
    hf_config: content of `config.json`: that of the model training started from, or `to_hf(config)`.
    out_dir: local or gs://; does not exist, or is an empty directory.
    dtype: type in the files: float32, bfloat16 or float16.
    max_shard_bytes: a file's tensors stay below this, except where a single one is larger.
    add_files: called with the directory before it is renamed, by the first process, for the tokenizer.
    crew: the processes that call this, each with the same arguments; they see the same `out_dir`.

  Raises:
    InputError: `out_dir` is a file or not empty; a type that is not written; a full or protected disk.
    ValueError: `params` or `hf_config` are not those of `config`.
  """
  out, type_name = epath.Path(out_dir), np.dtype(dtype).name
  if crew.index == 0:
    check_out_dir(out)
  _check(params, config, hf_config, out, type_name)
  tensors = _plan(config, np.dtype(dtype).itemsize)
  place = out if _is_remote(out) else out.parent / f".{out.name}.partial"
  try:
    if crew.index == 0:
      _clear(place)
    crew.meet()
    shard_of = _write_shards(place, params, tensors, np.dtype(dtype), max_shard_bytes, crew)
    crew.meet()
    if crew.index == 0:
      total_size = sum(tensor.num_bytes for tensor in tensors)
      _describe(place, shard_of, total_size, {**_without_dtype(hf_config), "torch_dtype": type_name}, add_files)
      if place != out:
        _rename(place, out)
    crew.meet()
  except OSError as error:
    raise InputError(
      f"{out_dir}: cannot be written ({error.strerror or error}); free the space or choose another place"
    ) from error
  finally:
    if place != out and crew.index == 0:
      place.rmtree(missing_ok=True)


def check_out_dir(out_dir: str | os.PathLike[str]) -> None:
  """Refuses a directory that `save_model` would not write.

  Args:
    out_dir: where to, local or gs://.

  Raises:
    InputError: it is a file or not empty.
  """
  path = epath.Path(out_dir)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise InputError(f"{out_dir}: exists and is not an empty directory; choose another one or delete it")


def _check(params: Params, config: ModelConfig, hf_config: dict[str, Any], out_dir: epath.Path, type_name: str) -> None:
  """Everything that can be known before a byte is written."""
  if type_name not in _FILE_TYPES:
    raise InputError(f"{out_dir}: cannot be written in {type_name}; choose one of {', '.join(_FILE_TYPES)}")
  if from_hf(hf_config, "hf_config") != config:
    raise ValueError("hf_config describes another model than config")
  expected = {leaf.path: leaf.shape for leaf in leaves(config)}
  found = {tuple(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
  if found != expected:
    differing = sorted("/".join(path) for path, _ in found.items() ^ expected.items())
    raise ValueError(f"the parameters are not those of the model: {', '.join(differing)}")


def _plan(config: ModelConfig, itemsize: int) -> list[Tensor]:
  """All tensors, layer by layer."""
  tensors = []
  for leaf in leaves(config):
    num_bytes = int(np.prod(leaf.file_shape)) * itemsize
    for layer, name in enumerate(leaf.names):
      tensors.append(Tensor(name=name, leaf=leaf, layer=layer if leaf.is_stacked else None, num_bytes=num_bytes))
  # Stable: what belongs to no layer keeps its place before or after the layers.
  is_end = {"final_norm": 2, "lm_head": 2, "layers": 1, "embed": 0}
  return sorted(tensors, key=lambda tensor: (is_end[tensor.leaf.path[0]], tensor.layer or 0))


def _write_shards(
  place: epath.Path, params: Params, tensors: list[Tensor], dtype: np.dtype, max_shard_bytes: int, crew: Crew
) -> dict[str, str]:
  """Writes the tensors into one file, or into several in turn; returns the file of each tensor."""
  shards = list(_split(tensors, max_shard_bytes))
  count = len(shards)
  files = [SINGLE] if count == 1 else [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
  for number, (file, shard) in enumerate(zip(files, shards, strict=True)):
    if number % crew.size == crew.index:
      _write_shard(place / file, params, shard, dtype)
    else:
      for tensor in shard:
        _whole(tensor, params)  # another process writes it, and needs this one's part
  return {tensor.name: file for file, shard in zip(files, shards, strict=True) for tensor in shard}


def _describe(
  place: epath.Path,
  shard_of: dict[str, str],
  total_size: int,
  config_json: dict[str, Any],
  add_files: Callable[[epath.Path], None] | None,
) -> None:
  """Writes what says which model this is."""
  if len(set(shard_of.values())) > 1:
    _write_json(place / INDEX, {"metadata": {"total_size": total_size}, "weight_map": shard_of})
  if add_files is not None:
    add_files(place)
  _write_json(place / CONFIG, config_json)


def _clear(place: epath.Path) -> None:
  """An empty directory, without the remains of an export that was killed."""
  if place.exists() and not _is_remote(place):
    place.rmtree()
  place.mkdir(parents=True, exist_ok=True)


def _rename(place: epath.Path, out: epath.Path) -> None:
  if out.exists():
    out.rmdir()  # empty, as was checked
  place.rename(out)


def _is_remote(path: epath.Path) -> bool:
  return "://" in str(path)


def _split(tensors: list[Tensor], max_shard_bytes: int) -> Iterator[list[Tensor]]:
  """Cuts the list where the next tensor would not fit any more."""
  shard: list[Tensor] = []
  for tensor in tensors:
    if shard and sum(other.num_bytes for other in shard) + tensor.num_bytes > max_shard_bytes:
      yield shard
      shard = []
    shard.append(tensor)
  yield shard


def _write_shard(file: epath.Path, params: Params, tensors: list[Tensor], dtype: np.dtype) -> None:
  """Writes one safetensors file: length of the header (8 bytes, little endian), header (JSON), tensors.

  By hand, because the library's `save_file` wants all tensors of the file in memory at once.
  Source: the format section of the safetensors README. transformers 4 asks for `"format": "pt"`.
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for tensor in tensors:
    start, end = end, end + tensor.num_bytes
    shape = list(tensor.leaf.file_shape)
    header[tensor.name] = {"dtype": _FILE_TYPES[dtype.name], "shape": shape, "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # aligns the first tensor
  with file.open("wb") as stream:
    stream.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
      stream.write(_to_host(tensor, params, dtype).view(np.uint8).data)
    _sync(stream)


def _to_host(tensor: Tensor, params: Params, dtype: np.dtype) -> np.ndarray:
  """The tensor as it goes into the file."""
  host = np.asarray(_whole(tensor, params))
  return np.ascontiguousarray((host.T if tensor.leaf.is_transposed else host).astype(dtype, copy=False))


def _whole(tensor: Tensor, params: Params) -> Any:
  """The tensor, whole; a collective of all processes where others hold a part of it."""
  value = get_leaf(params, tensor.leaf.path)
  if not isinstance(value, jax.Array) or value.is_fully_addressable:
    return jax.device_get(value if tensor.layer is None else value[tensor.layer])
  take = _gather(value.sharding.mesh, is_stacked=tensor.layer is not None)
  return take(value, tensor.layer or 0)


@cache
def _gather(mesh: Mesh, *, is_stacked: bool) -> Callable[[jax.Array, int], jax.Array]:
  """Puts a leaf, or a layer of it, onto every device of a mesh."""
  take = lambda leaf, layer: leaf[layer] if is_stacked else leaf
  return jax.jit(take, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _without_dtype(hf_config: dict[str, Any]) -> dict[str, Any]:
  """transformers 5 says dtype, 4 says torch_dtype and is understood by both."""
  return {key: value for key, value in hf_config.items() if key not in ("dtype", "torch_dtype")}


def _write_json(file: epath.Path, content: dict[str, Any]) -> None:
  with file.open("wb") as stream:
    stream.write((json.dumps(content, indent=2) + "\n").encode())
    _sync(stream)


def _sync(stream: BinaryIO) -> None:
  """Onto the disk before the directory gets its name; an object store keeps what it has taken."""
  stream.flush()
  try:
    descriptor = stream.fileno()
  except (OSError, AttributeError):
    return
  os.fsync(descriptor)
