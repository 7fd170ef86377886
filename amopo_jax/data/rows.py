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
    InputError: the file cannot be read, or it is an array of anything but objects, or one that does not end.
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
    return as_object(_decoded(text, self.origin(number)), "the row", self.origin(number))

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


class _RepeatedKeyError(ValueError):
  """JSON allows it, and Python would take the last one in silence."""


def _without_repeats(items: list[tuple[str, object]]) -> dict[str, object]:
  found = dict(items)
  if len(found) < len(items):
    keys = [key for key, _ in items]
    raise _RepeatedKeyError(repr(next(key for key in keys if keys.count(key) > 1)))
  return found


def _decoded(text: bytes, origin: str) -> object:
  try:
    return json.loads(text, object_pairs_hook=_without_repeats)
  except _RepeatedKeyError as error:
    raise InputError(f"{origin}: the key {error} stands twice in an object; keep one of the two") from None
  except UnicodeDecodeError:
    raise InputError(f"{origin}: not UTF-8; save the file in that encoding") from None
  except json.JSONDecodeError as error:
    place = f"{error.msg}, character {error.pos}"
    raise InputError(f"{origin}: broken JSON ({place}); a row must be one object") from None
  except ValueError:  # what else json raises: Python's limit on the digits of an integer
    raise InputError(f"{origin}: an integer has too many digits; correct it or write it as a text") from None
  except RecursionError:
    raise InputError(f"{origin}: lists or objects are nested too deeply; a row needs a few levels") from None


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


_MAY_FOLLOW = {b"": b"[", b"[": b"{]", b",": b"{", b"}": b",]", b"]": b""}
"""What may come next in an array of objects, after its bracket, a comma, an object, its end."""

_NO_OBJECT = "the array holds something other than objects); every element must be one"
_REFUSALS = {
  b"}": "no comma after an object of the array); put one between two objects",
  b"]": "something follows the end of the array); a file holds one array, or one object per line",
}


def _element_spans(file: BinaryIO, name: str) -> Iterator[tuple[int, int, int]]:
  """(begin, end, line number) of each object of the outermost array."""
  last, begin, line = b"", 0, 1
  for sign, offset, number, level in _structure(file):
    if level > 1:
      continue
    if level == 1 and sign in b"}]":  # only an object's end: other elements are refused where they begin
      yield begin, offset + 1, line
      last = b"}"
      continue
    if sign not in _MAY_FOLLOW[last]:
      raise InputError(f"{name}:{number}: broken JSON ({_REFUSALS.get(last, _NO_OBJECT)}")
    if sign == b"{":
      begin, line = offset, number
    last = sign
  if last != b"]":
    raise InputError(f"{name}:{line}: broken JSON (the element that begins here does not end); is the file cut off?")


_BETWEEN, _WITHIN, _QUOTED = re.compile(rb"[^ \t\r\n]"), re.compile(rb'[\[\]{}"]'), re.compile(rb'["\\]')


def _structure(file: BinaryIO) -> Iterator[tuple[bytes, int, int, int]]:
  """(sign, offset, line number, level) of all signs between elements, of brackets and quotes within, by chunks.

  Level 0 has the brackets of the array, level 1 those of its elements.
  """
  base = file.seek(len(_BYTE_ORDER_MARK) if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK else 0)
  quoted, depth, line, position = False, 0, 1, 0
  while chunk := file.read(_CHUNK):
    counted = 0
    while match := (_QUOTED if quoted else _WITHIN if depth > 1 else _BETWEEN).search(chunk, position):
      sign, position = match.group(), match.end()
      if quoted and sign == b"\\":
        position += 1  # the escaped character, possibly the first of the next chunk
        continue
      quoted ^= sign == b'"'
      line += chunk.count(b"\n", counted, position)
      counted = position
      depth -= sign in b"]}"
      yield sign, base + match.start(), line, depth
      depth += sign in b"[{"
    line += chunk.count(b"\n", counted)
    position = max(0, position - len(chunk))
    base += len(chunk)
