"""safetensors in an object store, read by ranges of bytes: the part of `safe_open` that the import uses."""

import json
import math
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


class RemoteWeights:
  """An open file.

  Args:
    file: of an object store.

  Raises:
    OSError: not there, or not to be read.
    ValueError: not a safetensors file, or cut off.
  """

  def __init__(self, file: epath.Path):
    size = file.stat().length
    self._stream = file.open("rb")
    length = int.from_bytes(self._stream.read(8), "little")
    if not 0 < length <= min(size, _LONGEST_HEADER):
      raise ValueError(f"header of {length} bytes in a file of {size}")
    header = json.loads(self._stream.read(length))
    self._tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    self._start = 8 + length
    end = self._start + max((entry["data_offsets"][1] for entry in self._tensors.values()), default=0)
    if end != size:
      raise ValueError(f"{size} bytes, where its header means {end}")

  def __enter__(self) -> "RemoteWeights":
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._stream.close()

  def keys(self) -> list[str]:
    """Names of the tensors."""
    return list(self._tensors)

  def get_slice(self, name: str) -> "RemoteSlice":
    """A tensor, of which nothing is read yet."""
    return RemoteSlice(self._stream, self._start, self._tensors[name])


class RemoteSlice:
  """A tensor of an open file; indexing reads the rows it needs, whole, in one request.

  Args:
    stream: of the file.
    start: of its data.
    entry: the header's, of this tensor.
  """

  def __init__(self, stream: Any, start: int, entry: dict[str, Any]):
    self._stream, self._start, self._entry = stream, start + entry["data_offsets"][0], entry

  def get_shape(self) -> list[int]:
    """Its shape."""
    return self._entry["shape"]

  def get_dtype(self) -> str:
    """Its type, in the spelling of safetensors."""
    return self._entry["dtype"]

  def __getitem__(self, where: slice | tuple[slice, ...]) -> np.ndarray:
    first, *rest = where if isinstance(where, tuple) else (where,)
    shape, kind = self._entry["shape"], np.dtype(_TYPES[self._entry["dtype"]])
    begin, end, _ = first.indices(shape[0])
    row = math.prod(shape[1:]) * kind.itemsize
    self._stream.seek(self._start + begin * row)
    content = self._stream.read((end - begin) * row)
    return np.frombuffer(content, kind).reshape(end - begin, *shape[1:])[(slice(None), *rest)]
