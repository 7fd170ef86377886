"""A Hugging Face model directory into (sharded) arrays, slice by slice.

The parts of a parameter that this process's devices hold are read from the memory-mapped files, put onto the devices
and forgotten, and so are the pages of the files. So the host holds one part of one parameter at a time, or as many as
make a GiB, and each process of a pod reads its share of the files (`hf_place`).
"""

import os
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_files import (
  CONFIG,
  AnyPath,
  TensorHeader,
  View,
  open_views,
  read_headers,
  read_json,
  resolve_model,
)
from amopo_jax.models.hf_names import EMBEDDING, HARMLESS_TENSORS, HEAD, get_leaf, leaves, set_leaf
from amopo_jax.models.hf_place import place, place_quantized
from amopo_jax.models.quantized import TYPES
from amopo_jax.types import InputError, Params

_FLOATS = ("F64", "F32", "F16", "BF16")
_COMPARED_ROWS = 4096
"""Rows of the vocabulary held at a time when two tables are compared."""


def load_config(path_or_hub_name: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, Any]]:
  """Reads `config.json` alone; of a hub name, only small files are fetched.

  Args:
    path_or_hub_name: a directory, local or gs://, or ORGANISATION/NAME on the Hugging Face Hub.

  Returns:
    The hyper-parameters, and the content of the file, which an export keeps.

  Raises:
    InputError: not there, or not a model that this decoder computes exactly (see `from_hf`).
  """
  file = resolve_model(path_or_hub_name, with_weights=False) / CONFIG
  content = read_json(file)
  return from_hf(content, str(file)), content


def check_model_dir(path_or_hub_name: str | os.PathLike[str]) -> ModelConfig:
  """Checks that a model can be loaded, reading only config and headers: fast, and before anything compiles.

  Args:
    path_or_hub_name: a directory, local or gs://, or ORGANISATION/NAME on the Hugging Face Hub.

  Returns:
    The hyper-parameters.

  Raises:
    InputError: as `load_config`; and missing, truncated or corrupt files; tensors that are missing, of
      another shape, of a type that is not a plain float, or that this decoder does not have.
  """
  directory = resolve_model(path_or_hub_name, with_weights=True)
  config, _ = load_config(directory)
  check_headers(read_headers(directory), config, directory)
  return config


def load_params(
  path_or_hub_name: str | os.PathLike[str],
  config: ModelConfig,
  *,
  dtype: jax.typing.DTypeLike,
  shardings: Params | None = None,
  kernel_type: str = "",
) -> Params:
  """Loads the parameters straight into sharded arrays.

  Host memory stays near a GiB, or the largest part of a parameter that one device holds. Where kernels are quantized,
  a device holds one layer of one kernel as floats at a time.

  Args:
    path_or_hub_name: a directory, local or gs://, or ORGANISATION/NAME on the Hugging Face Hub.
    config: the hyper-parameters of that model.
    dtype: type of the arrays; the files may have another.
    shardings: tree like the parameters, of `jax.sharding.Sharding`; None: everything on the first device.
    kernel_type: of the kernels of a frozen base: a name of `quantized.TYPES`, for which a kernel becomes the dict that
      `quantized.quantize` makes, in `shardings` too, or of a float type; "": as the rest.

  Returns:
    The parameter tree.

  Raises:
    InputError: as `check_model_dir`; and a tied head that differs from the embedding.
  """
  directory = resolve_model(path_or_hub_name, with_weights=True)
  headers = read_headers(directory)
  check_headers(headers, config, directory)
  params: Params = {}
  with ExitStack() as stack:
    views = open_views(headers, stack)
    if config.tie_embeddings and HEAD in headers:
      with views() as view:
        _check_tied_head(view, headers[HEAD])
    for leaf in leaves(config):
      sharding = get_leaf(shardings, leaf.path) if shardings else SingleDeviceSharding(jax.local_devices()[0])
      name = kernel_type if leaf.path[-1] == "kernel" else ""
      if name in TYPES:
        set_leaf(params, leaf.path, place_quantized(leaf, views, name, sharding))
      else:
        set_leaf(params, leaf.path, place(leaf, views, np.dtype(name or dtype), sharding))
  return params


def check_headers(headers: dict[str, TensorHeader], config: ModelConfig, directory: AnyPath) -> None:
  """Compares what the files have with what the parameter tree needs; InputError names a difference."""
  shapes = {name: leaf.file_shape for leaf in leaves(config) for name in leaf.names}
  missing = sorted(shapes.keys() - headers.keys())
  if missing:
    raise InputError(f"{directory}: {_first(missing)} missing; fetch the model again, or correct its {CONFIG}")
  if config.tie_embeddings:
    shapes[HEAD] = shapes[EMBEDDING]
  extra = sorted(name for name in headers.keys() - shapes.keys() if not HARMLESS_TENSORS.fullmatch(name))
  if extra:
    raise InputError(
      f"{headers[extra[0]].file}: {_first(extra)} unknown to {config.architecture}, would be ignored; use another model"
    )
  for name, header in headers.items():
    if name in shapes and header.shape != shapes[name]:
      found, expected = list(header.shape), list(shapes[name])
      raise InputError(
        f"{header.file}: tensor {name} has shape {found}, but {CONFIG} means {expected}; correct one of them"
      )
    if header.dtype not in _FLOATS:
      raise InputError(f"{header.file}: tensor {name} has type {header.dtype}; only {', '.join(_FLOATS)} are read")


def _check_tied_head(view: View, header: TensorHeader) -> None:
  """Some files repeat the tied table; a different one would mean that the model is not tied at all.

  Of several processes each compares its share of the rows.
  """
  head, embedding = view(HEAD), view(EMBEDDING)
  first, last = (header.shape[0] * (jax.process_index() + part) // jax.process_count() for part in (0, 1))
  for start in range(first, last, _COMPARED_ROWS):
    rows = slice(start, min(start + _COMPARED_ROWS, last))
    if not np.array_equal(head[rows].astype(np.float32), embedding[rows].astype(np.float32)):
      raise InputError(
        f"{header.file}: tensor {HEAD} differs from {EMBEDDING}, but {CONFIG} ties them; "
        f"set tie_word_embeddings to false to use both, or delete {HEAD}"
      )


def _first(names: list[str]) -> str:
  """The first name, and how many more there are."""
  return f"tensor {names[0]}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
