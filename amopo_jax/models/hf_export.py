"""Parameters into a Hugging Face model directory that transformers and vLLM load."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

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


def save_model(
  params: Params,
  config: ModelConfig,
  hf_config: dict[str, Any],
  out_dir: str | Path,
  *,
  dtype: jax.typing.DTypeLike,
  max_shard_bytes: int = 5_000_000_000,
  add_files: Callable[[Path], None] | None = None,
) -> None:
  """Writes safetensors, their index where there are several, and `config.json`.

  Everything is written into a directory beside `out_dir`, which is renamed at the end: a directory of that
  name is complete or not there. The tensors stream: the host holds one at a time.

  Args:
    params: the parameter tree, in jax or numpy arrays that this process holds entirely.
    config: its hyper-parameters.
    hf_config: content of `config.json`: that of the model training started from, or `to_hf(config)`.
    out_dir: does not exist, or is an empty directory.
    dtype: type in the files: float32, bfloat16 or float16.
    max_shard_bytes: a file's tensors stay below this, except where a single one is larger.
    add_files: called with the directory before it is renamed, for the tokenizer.

  Raises:
    InputError: `out_dir` is remote, a file or not empty; a type that is not written; a full or protected disk.
    ValueError: `params` or `hf_config` are not those of `config`.
  """
  check_out_dir(out_dir)
  out_dir, type_name = Path(out_dir), np.dtype(dtype).name
  _check(params, config, hf_config, out_dir, type_name)
  partial = out_dir.parent / f".{out_dir.name}.partial-{os.getpid()}"
  try:
    partial.mkdir(parents=True)
    _write_shards(partial, params, _plan(config, np.dtype(dtype).itemsize), np.dtype(dtype), max_shard_bytes)
    _write_json(partial / CONFIG, {**_without_dtype(hf_config), "torch_dtype": type_name})
    if add_files is not None:
      add_files(partial)
    partial.rename(out_dir)
  except OSError as error:
    raise InputError(
      f"{out_dir}: cannot be written ({error.strerror}); free the space or choose another place"
    ) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def check_out_dir(out_dir: str | Path) -> None:
  """Refuses a directory that `save_model` would not write.

  Args:
    out_dir: where to.

  Raises:
    InputError: it is remote, a file or not empty.
  """
  if "://" in str(out_dir):
    raise InputError(f"{out_dir}: an export needs a local directory; give one, and copy it from there")
  path = Path(out_dir)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise InputError(f"{out_dir}: exists and is not an empty directory; choose another one or delete it")


def _check(params: Params, config: ModelConfig, hf_config: dict[str, Any], out_dir: Path, type_name: str) -> None:
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
  directory: Path, params: Params, tensors: list[Tensor], dtype: np.dtype, max_shard_bytes: int
) -> None:
  """Writes the tensors into one file, or into several and their index."""
  shards = list(_split(tensors, max_shard_bytes))
  if len(shards) == 1:
    return _write_shard(directory / SINGLE, params, tensors, dtype)
  shard_of: dict[str, str] = {}
  for number, shard in enumerate(shards, start=1):
    file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    _write_shard(directory / file, params, shard, dtype)
    shard_of |= {tensor.name: file for tensor in shard}
  total_size = sum(tensor.num_bytes for tensor in tensors)
  _write_json(directory / INDEX, {"metadata": {"total_size": total_size}, "weight_map": shard_of})


def _split(tensors: list[Tensor], max_shard_bytes: int) -> Iterator[list[Tensor]]:
  """Cuts the list where the next tensor would not fit any more."""
  shard: list[Tensor] = []
  for tensor in tensors:
    if shard and sum(other.num_bytes for other in shard) + tensor.num_bytes > max_shard_bytes:
      yield shard
      shard = []
    shard.append(tensor)
  yield shard


def _write_shard(file: Path, params: Params, tensors: list[Tensor], dtype: np.dtype) -> None:
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
  value = get_leaf(params, tensor.leaf.path)
  host = np.asarray(jax.device_get(value if tensor.layer is None else value[tensor.layer]))
  return np.ascontiguousarray((host.T if tensor.leaf.is_transposed else host).astype(dtype, copy=False))


def _without_dtype(hf_config: dict[str, Any]) -> dict[str, Any]:
  """transformers 5 says dtype, 4 says torch_dtype and is understood by both."""
  return {key: value for key, value in hf_config.items() if key not in ("dtype", "torch_dtype")}


def _write_json(file: Path, content: dict[str, Any]) -> None:
  with file.open("wb") as stream:
    stream.write((json.dumps(content, indent=2) + "\n").encode())
    _sync(stream)


def _sync(stream: BinaryIO) -> None:
  """Onto the disk before the directory gets its name."""
  stream.flush()
  os.fsync(stream.fileno())
