"""Parts of a parameter out of the tensors of files: turned round, converted, layers stacked.

Files are gone through once for all parts that are wanted together, some rows at a time. Several threads copy side by
side, which numpy lets plain integers do.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import ml_dtypes
import numpy as np

from amopo_jax.models.hf_files import View, Views
from amopo_jax.models.hf_names import Leaf

_STRIP_ROWS = 128
_TILE, _PADDING = 256, 32
"""Rows and columns of a matrix that are turned round at a time, and entries that keep them from a power of two."""
_PIECE_BYTES = 1 << 24
"""Of a tensor that a thread goes through at a time."""
_PIECES_AT_ONCE = 16
"""Of which the files' pages may be resident together."""
_ALIGNMENT = 64
COPIERS = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="import")
"""For copies in and out of files; no more than cores: with twice as many an import took twice as long."""

Bounds = tuple[tuple[int, int], ...]
"""First and one past the last index along each axis."""


class _Target(NamedTuple):
  """Where a layer of a part goes.

  Attributes:
    array: to be filled, its axes in the file's order.
    where: of the tensor, what belongs there.
  """

  array: np.ndarray
  where: Bounds


class _Piece(NamedTuple):
  """Some rows of a tensor, and who wants of them."""

  name: str
  rows: tuple[int, int]
  targets: list[_Target]


def read_parts(leaf: Leaf, views: Views, dtype: np.dtype, parts: Sequence[Bounds]) -> list[np.ndarray]:
  """Reads rectangular parts of a leaf.

  Args:
    leaf: which.
    views: of the files.
    dtype: of the result; the files may have another.
    parts: bounds of each.
  """
  arrays = [_aligned([stop - start for start, stop in bounds], dtype) for bounds in parts]
  pieces = _pieces(leaf, arrays, parts)
  while some := list(itertools.islice(pieces, _PIECES_AT_ONCE)):
    with views() as view:
      list(COPIERS.map(lambda piece: _fill(piece, view), some))
  return arrays


def _pieces(leaf: Leaf, arrays: Sequence[np.ndarray], parts: Sequence[Bounds]) -> Iterator[_Piece]:
  """All that the parts need, tensor by tensor."""
  size = max(1, _PIECE_BYTES // (math.prod(leaf.file_shape[1:]) * 4))  # rows, as if of float32
  for layer, name in enumerate(leaf.names):
    targets = [
      found for array, bounds in zip(arrays, parts, strict=True) if (found := _target(leaf, array, bounds, layer))
    ]
    for start in range(0, leaf.file_shape[0], size):
      stop = min(start + size, leaf.file_shape[0])
      wanting = [target for target in targets if target.where[0][0] < stop and start < target.where[0][1]]
      if wanting:
        first, last = (pick(target.where[0][end] for target in wanting) for end, pick in ((0, min), (1, max)))
        yield _Piece(name, (max(start, first), min(stop, last)), wanting)


def _target(leaf: Leaf, array: np.ndarray, bounds: Bounds, layer: int) -> _Target | None:
  """A layer's place in a part; None if that has other layers."""
  if leaf.is_stacked:
    first, last = bounds[0]
    if not first <= layer < last:
      return None
    array, bounds = array[layer - first], bounds[1:]
  return _Target(array.T, bounds[::-1]) if leaf.is_transposed else _Target(array, bounds)


def _fill(piece: _Piece, view: View) -> None:
  """Reads the piece once, and copies what each target wants of it."""
  start, stop = piece.rows
  rows = view(piece.name)[start:stop]
  for target in piece.targets:
    (first, last), *columns = target.where
    low, high = max(first, start), min(last, stop)
    where = slice(low - start, high - start), *(slice(*pair) for pair in columns)
    convert(target.array[low - first : high - first], rows[where])


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Empty, at an address that a CPU device takes as it is, without a copy."""
  num_bytes = math.prod(shape) * dtype.itemsize
  memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + num_bytes].view(dtype).reshape(shape)


def convert(target: np.ndarray, source: np.ndarray) -> None:
  """`target[...] = source`, some rows at a time, and tile by tile where one lies across the other.

  A tile goes through a buffer whose rows are a little longer than it: rows that lie a power of two apart take each
  other's place in a processor's cache, and turning them round in place takes three times as long.

  Args:
    target, source: of the same shape; any types of files.
  """
  if target.ndim == 2 and _fast_axis(target) != _fast_axis(source):
    _turn(target, source)
    return
  for start in range(0, len(target), _STRIP_ROWS):
    _cast(target[start : start + _STRIP_ROWS], source[start : start + _STRIP_ROWS])


def _fast_axis(array: np.ndarray) -> int:
  """Of a matrix, the axis along which neighbours lie next to each other."""
  return 0 if array.strides[0] < array.strides[1] else 1


def _turn(target: np.ndarray, source: np.ndarray) -> None:
  if _fast_axis(source) == 0:
    target, source = target.T, source.T
  buffer = np.empty((_TILE, _TILE + _PADDING), target.dtype)
  for row, column in itertools.product(range(0, len(source), _TILE), range(0, source.shape[1], _TILE)):
    where = slice(row, row + _TILE), slice(column, column + _TILE)
    from_tile, into = source[where], target[where]
    tile = buffer[: from_tile.shape[0], : from_tile.shape[1]]
    _cast(tile, from_tile)
    _cast(into, tile)


def _cast(target: np.ndarray, source: np.ndarray) -> None:
  """`target[...] = source`.

  Numbers of the same type go as bits, and so does bfloat16 to float32: of plain integers numpy copies many at a time,
  and lets other threads run meanwhile.
  """
  bits = np.dtype(f"u{target.itemsize}")
  if target.dtype == source.dtype:
    target.view(bits)[...] = source.view(bits)
  elif target.dtype == np.float32 and source.dtype == ml_dtypes.bfloat16:
    target.view(bits)[...] = source.view(np.uint16)
    target.view(bits)[...] <<= 16
  else:
    target[...] = source
