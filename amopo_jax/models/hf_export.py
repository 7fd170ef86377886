"""Parameters into a Hugging Face model directory that transformers and vLLM load.

Several processes write one directory: each its share of the files, the first one what describes them.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_files import CONFIG, INDEX, SINGLE
from amopo_jax.models.hf_names import leaves
from amopo_jax.models.hf_tensors import (
  FILE_TYPES,
  Behind,
  Tensor,
  lend_shard,
  plan_tensors,
  split_tensors,
  sync,
  write_shard,
)
from amopo_jax.types import InputError, Params


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


_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_BESIDE = frozenset(
  ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
) | {"vocab.json", "merges.txt", "generation_config.json"}
"""What an export may have written beside the tensors; `config.json` makes them a model."""

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
  directory for a model, comes last. The tensors stream: the host holds two at a time, a device one.

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
  tensors = plan_tensors(config, np.dtype(dtype).itemsize)
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
    out_dir: where to, local or gs://; there it may hold what an export left that was killed.

  Raises:
    InputError: it is a file or not empty.
  """
  path = epath.Path(out_dir)
  if path.exists() and (not path.is_dir() or any(path.iterdir())) and not _is_unfinished(path):
    raise InputError(f"{out_dir}: exists and is not an empty directory; choose another one or delete it")


def _check(params: Params, config: ModelConfig, hf_config: dict[str, Any], out_dir: epath.Path, type_name: str) -> None:
  """Everything that can be known before a byte is written."""
  if type_name not in FILE_TYPES:
    raise InputError(f"{out_dir}: cannot be written in {type_name}; choose one of {', '.join(FILE_TYPES)}")
  if from_hf(hf_config, "hf_config") != config:
    raise ValueError("hf_config describes another model than config")
  expected = {leaf.path: leaf.shape for leaf in leaves(config)}
  found = {tuple(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
  if found != expected:
    differing = sorted("/".join(path) for path, _ in found.items() ^ expected.items())
    raise ValueError(f"the parameters are not those of the model: {', '.join(differing)}")


def _write_shards(
  place: epath.Path, params: Params, tensors: list[Tensor], dtype: np.dtype, max_shard_bytes: int, crew: Crew
) -> dict[str, str]:
  """Writes the tensors into one file, or into several in turn; returns the file of each tensor."""
  shards = list(split_tensors(tensors, max_shard_bytes))
  count = len(shards)
  files = [SINGLE] if count == 1 else [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
  with Behind() as behind:
    for number, (file, shard) in enumerate(zip(files, shards, strict=True)):
      if number % crew.size == crew.index:
        write_shard(place / file, params, shard, dtype, behind)
      else:
        lend_shard(params, shard)
    behind.finish()
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
  if place.exists():
    place.rmtree()
  place.mkdir(parents=True, exist_ok=True)


def _is_unfinished(path: epath.Path) -> bool:
  """Whether an object store holds what an export writes before `config.json`, and nothing else."""
  if not _is_remote(path) or not path.is_dir():
    return False
  names = [file.name for file in path.iterdir()]
  return any(_SHARD.fullmatch(name) for name in names) and all(
    _SHARD.fullmatch(name) or name == INDEX or name in _BESIDE for name in names
  )


def _rename(place: epath.Path, out: epath.Path) -> None:
  if out.exists():
    out.rmdir()  # empty, as was checked
  place.rename(out)


def _is_remote(path: epath.Path) -> bool:
  return "://" in str(path)


def _without_dtype(hf_config: dict[str, Any]) -> dict[str, Any]:
  """transformers 5 says dtype, 4 says torch_dtype and is understood by both."""
  return {key: value for key, value in hf_config.items() if key not in ("dtype", "torch_dtype")}


def _write_json(file: epath.Path, content: dict[str, Any]) -> None:
  with file.open("wb") as stream:
    stream.write((json.dumps(content, indent=2) + "\n").encode())
    sync(stream)
