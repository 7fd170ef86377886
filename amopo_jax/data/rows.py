"""Random access to the rows of a JSON Lines or JSON array file that is never held in memory.

Opening a file reads it once, to note where each row begins and ends (24 bytes per row); a row is read and
decoded when it is asked for. A pickled `FileRows` leaves its file handle behind: worker processes reopen.
"""

import json
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from amopo_jax.data.fields import Row, as_object
from amopo_jax.types import InputError

_CHUNK = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FileRows:
  """The rows of one file, by number.

  Args:
    path: a JSON Lines file, or a JSON file that is one array of objects; the first byte decides.
    name: how messages call the file.

  Raises:
    InputError: the file cannot be read, or it is an array that does not end.
  """

  def __init__(self, path: Path, name: str):
    self.name, self._path, self._handle = name, path, None
    try:
      with open(path, "rb") as file:
        spans = _element_spans(file, name) if _is_array(file) else _line_spans(file)
        self._spans = np.fromiter(spans, np.dtype((np.int64, 3)))
    except OSError as error:
      raise InputError(f"{name}: cannot be read ({error.strerror}); check the path") from None

  def __len__(self) -> int:
    return len(self._spans)

  def __getitem__(self, number: int) -> Row:
    begin, end, _ = self._spans[number]
    text = os.pread(self._open(), end - begin, begin)  # no shared position: Grain reads in threads
    try:
      row = json.loads(text)
    except UnicodeDecodeError:
      raise InputError(f"{self.origin(number)}: not UTF-8; save the file in that encoding") from None
    except json.JSONDecodeError as error:
      raise InputError(
        f"{self.origin(number)}: broken JSON ({error.msg}, character {error.pos}); a row must be one object"
      ) from None
    return as_object(row, "the row", self.origin(number))

  def origin(self, number: int) -> str:
    """Where a row is, "file:line"; its first line in a JSON array."""
    return f"{self.name}:{self._spans[number, 2]}"

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_handle": None}

  def _open(self) -> int:
    if self._handle is None:
      handle = os.open(self._path, os.O_RDONLY)
      weakref.finalize(self, os.close, handle)
      self._handle = handle
    return self._handle


def _is_array(file: BinaryIO) -> bool:
  head = file.read(_CHUNK).removeprefix(_BYTE_ORDER_MARK).lstrip()
  file.seek(0)
  return head.startswith(b"[")


def _line_spans(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
  """(begin, end, line number) of each line that is not blank."""
  begin = 0
  for number, line in enumerate(file, start=1):
    if not line.isspace():
      yield begin, begin + len(line), number
    begin += len(line)


def _element_spans(file: BinaryIO, name: str) -> Iterator[tuple[int, int, int]]:
  """(begin, end, line number) of each object of the outermost array."""
  depth, begin, line = 0, 0, 1
  for sign, offset, number in _structure(file):
    if depth == 1 and sign not in b"{]":
      raise InputError(f"{name}:{number}: broken JSON (the array holds something other than objects)")
    if sign in b"{[":
      if depth == 1:
        begin, line = offset, number
      depth += 1
    elif sign in b"}]":
      depth -= 1
      if depth == 1:
        yield begin, offset + 1, line
  if depth:
    raise InputError(f"{name}:{line}: broken JSON (the element that begins here does not end); is the file cut off?")


_OUTSIDE, _INSIDE = re.compile(rb'[\[\]{}"]'), re.compile(rb'["\\]')


def _structure(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
  """(sign, offset, line number) of the quotes, and of the brackets outside of strings, chunk by chunk."""
  quoted, base, line, position = False, 0, 1, 0
  while chunk := file.read(_CHUNK):
    counted = 0
    while match := (_INSIDE if quoted else _OUTSIDE).search(chunk, position):
      sign, position = match.group(), match.end()
      if sign == b"\\":
        position += 1  # the escaped character, possibly the first of the next chunk
        continue
      quoted ^= sign == b'"'
      line += chunk.count(b"\n", counted, position)
      counted = position
      yield sign, base + match.start(), line
    line += chunk.count(b"\n", counted)
    position = max(0, position - len(chunk))
    base += len(chunk)
