"""safetensors files, read in slices: mapped from a disk, or by ranges of bytes from an object store.

By hand, because the library's `safe_open` copies each slice of a mapped file into memory of its own, and knows no
object stores. Source: the format section of the safetensors README.
"""

import json
import math
import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


class Header(Mapping[str, dict[str, Any]]):
  """What a file says of its tensors: names -> `dtype`, `shape`, `data_offsets`.

  Args:
    stream: of the file, at its beginning.
    size: of the file in bytes.

  Attributes:
    start: of the data in the file.

  Raises:
    ValueError: not a safetensors file, or cut off.
  """

  def __init__(self, stream: Any, size: int):
    length = int.from_bytes(stream.read(8), "little")
    if not 0 < length <= min(size, _LONGEST_HEADER):
      raise ValueError(f"header of {length} bytes in a file of {size}")
    content = json.loads(stream.read(length))
    self._tensors = {name: entry for name, entry in content.items() if name != "__metadata__"}
    self.start = 8 + length
    try:
      end = self.start + max((self._end_of(name) for name in self._tensors), default=0)
    except (KeyError, TypeError) as error:
      raise ValueError(f"a header that is none: {type(error).__name__} {error}") from error
    if end != size:
      raise ValueError(f"{size} bytes, where its header means {end}")

  def _end_of(self, name: str) -> int:
    """Where a tensor's bytes end, which have to be as many as its shape says."""
    entry = self._tensors[name]
    first, last = entry["data_offsets"]
    kind = _TYPES.get(entry["dtype"])  # others are refused by whoever wants them as numbers
    if first < 0 or (kind and last - first != math.prod(entry["shape"]) * np.dtype(kind).itemsize):
      raise ValueError(f"tensor {name} has {last - first} bytes for shape {entry['shape']} of {entry['dtype']}")
    return last

  def __getitem__(self, name: str) -> dict[str, Any]:
    return self._tensors[name]

  def __iter__(self):
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)


class MappedWeights:
  """A file of a disk. Slices are views of its pages; those that were read stay resident until they are forgotten.

  Args:
    file: the file.

  Raises:
    OSError: not there, or not to be read.
    ValueError: not a safetensors file, or cut off.
  """

  def __init__(self, file: Path):
    with file.open("rb") as stream:
      self.header = Header(stream, file.stat().st_size)
      self._pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

  def close(self) -> None:
    """Nothing is read any more."""
    del self._pages  # unmapped with the last view

  def get_slice(self, name: str) -> np.ndarray:
    """The tensor."""
    entry = self.header[name]
    first, last = (self.header.start + offset for offset in entry["data_offsets"])
    return np.frombuffer(memoryview(self._pages)[first:last], _TYPES[entry["dtype"]]).reshape(entry["shape"])

  def forget(self) -> None:
    """Gives the pages back; they stay in the system's cache."""
    self._pages.madvise(mmap.MADV_DONTNEED)


class RemoteWeights:
  """A file of an object store; threads take turns.

  Args:
    file: the file.

  Raises:
    OSError: not there, or not to be read.
    ValueError: not a safetensors file, or cut off.
  """

  def __init__(self, file: epath.Path):
    size = file.stat().length
    self._stream, self._lock = file.open("rb"), threading.Lock()
    self.header = Header(self._stream, size)

  def close(self) -> None:
    """Nothing is read any more."""
    self._stream.close()

  def get_slice(self, name: str) -> "RemoteSlice":
    """A tensor, of which nothing is read yet."""
    return RemoteSlice(self, self.header[name])

  def read(self, start: int, count: int) -> bytes:
    """`count` bytes of the data, in one request."""
    with self._lock:
      self._stream.seek(self.header.start + start)
      return self._stream.read(count)

  def forget(self) -> None:
    """Nothing is kept."""


class RemoteSlice:
  """A tensor of an open file; indexing reads the rows it needs, whole, in one request.

  Args:
    weights: the file.
    entry: the header's, of this tensor.
  """

  def __init__(self, weights: RemoteWeights, entry: dict[str, Any]):
    self._weights, self._entry = weights, entry

  def __getitem__(self, where: slice | tuple[slice, ...]) -> np.ndarray:
    first, *rest = where if isinstance(where, tuple) else (where,)
    shape, kind = self._entry["shape"], np.dtype(_TYPES[self._entry["dtype"]])
    begin, end, _ = first.indices(shape[0])
    row = math.prod(shape[1:]) * kind.itemsize
    content = self._weights.read(self._entry["data_offsets"][0] + begin * row, (end - begin) * row)
    return np.frombuffer(content, kind).reshape(end - begin, *shape[1:])[(slice(None), *rest)]
