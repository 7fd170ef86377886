"""A result that is written batch by batch: files in a folder beside it, each whole or not there, joined at the end."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from amopo_jax.lock import hold_workdir
from amopo_jax.types import InputError, RunFailure


class Parts:
  """The finished batches of a request.

  Args:
    path: of the result, which appears there when it is complete.
    settings: JSON-able, of the request; batches of another one are not gone on with.
  """

  def __init__(self, path: epath.Path, settings: dict[str, Any]):
    self._path, self._folder = path, path.with_name(path.name + ".partial")
    self._settings = json.dumps(settings, sort_keys=True)

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """While it is open, no other run can write batches of this result; InputError if one does."""
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(hold_workdir(str(self._folder)))
      except OSError as error:
        raise _unwritten(self._folder, error) from error
      yield

  def open(self) -> int:
    """How many batches are there; InputError if they are of another request."""
    note = self._folder / "settings.json"
    if not note.exists():
      for stale in self._files():
        stale.unlink()
      self._write(note, self._settings)
      return 0
    if note.read_text() != self._settings:
      raise InputError(
        f"{self._folder}: holds batches of another request; give its flags to go on with it, or delete the folder"
      )
    number = 0
    while (self._folder / _part(number)).exists():
      number += 1
    return number

  def write(self, number: int, lines: Sequence[dict[str, Any]]) -> None:
    """Keeps a batch."""
    self._write(self._folder / _part(number), "".join(json.dumps(line) + "\n" for line in lines))

  def finish(self, count: int) -> None:
    """Joins the batches under the name of the result; RunFailure if they are not `count`, or the result is there."""
    names = [file.name for file in self._files()]
    if names != [_part(number) for number in range(count)] or self._path.exists():
      raise RunFailure(f"{self._path}: another run wrote it, or its batches; look what is there, and start again")
    self._write(self._path, "".join((self._folder / name).read_text() for name in names))
    self._folder.rmtree()

  def _files(self) -> list[epath.Path]:
    """Of batches, in their order."""
    found = [file for file in self._folder.iterdir() if file.name.endswith(".jsonl")] if self._folder.exists() else []
    return sorted(found, key=lambda file: file.name)

  def _write(self, path: epath.Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
      path.parent.mkdir(exist_ok=True)
      fresh.write_text(text)
      fresh.replace(path)
    except OSError as error:
      raise _unwritten(path, error) from error


def _unwritten(path: epath.Path, error: OSError) -> RunFailure:
  return RunFailure(f"{path}: cannot be written ({error.strerror or error}); make room and start again")


def _part(number: int) -> str:
  return f"{number:06d}.jsonl"
