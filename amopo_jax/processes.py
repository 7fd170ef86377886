"""Several processes of one run: they agree on what they run, and stop together.

JAX's runtime carries small texts between them (its coordination service, in process 0). This module adds what a person
wants to read when something goes wrong: a process that stops leaves a line for the others, who print it and stop too,
instead of waiting for it in a collective.

The functions that exchange something are called by all processes in the same order; with one process they do nothing.
"""

import contextlib
import functools
import itertools
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # the runtime's texts have no public door

from amopo_jax.signs import SILENT_SECONDS, Signs, Watch
from amopo_jax.types import InputError

_FAULT, _GONE = "amopo/fault", "amopo/gone"
_LISTENING_MS = 1_000
_PARTING_SECONDS, _LAST_SECONDS = 5.0, 3.0
_LONGEST_PARTING_SECONDS = 60.0
_EXCHANGE_MS = 3_600_000
"""A process may load and check its data for long; one that is gone is noticed by its missing heartbeats."""

_numbers, _parting = itertools.count(), threading.Lock()


def is_several() -> bool:
  """Whether this run has more than one process."""
  return global_state.client is not None and global_state.num_processes > 1


def stop_others(line: str, status: int) -> None:
  """Ends this process after its failure, and all others with the same line and status; returns if there are none.

  Where another process failed first, its line is what everybody prints.

  Args:
    line: what went wrong.
    status: to exit with.
  """
  if not is_several():
    return
  with contextlib.suppress(Exception):  # another was faster, or the runtime is broken
    _client().key_value_set(_FAULT, json.dumps([global_state.process_id, line, status]))
  _part(status)


def find_cause(error: Exception) -> str:
  """What to tell of an error that nobody expected: of several processes, most often that another one is gone.

  A process whose neighbour failed meets a broken connection and the neighbour's line at the same time; the line comes
  first, and ends this process.
  """
  shown = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
  if is_several():
    threading.Event().wait(2 * _LISTENING_MS / 1000)
    return (
      f"process {global_state.process_id}: {shown}; if another process was killed, or its machine is gone, "
      "start all of them again with the same command"
    )
  return shown


def agree(what: str, value: Any) -> None:
  """Refuses to go on unless process 0 has the same value; returns when all have compared.

  Args:
    what: names the value in the message.
    value: JSON-able.

  Raises:
    InputError: it has another.
  """
  if not is_several():
    return
  theirs = from_first(value)
  if theirs != json.loads(json.dumps(value)):
    path, mine, other = next(_differences(value, theirs, what))
    raise InputError(
      f"process {global_state.process_id} has {path}={mine!r}, process 0 has {other!r}; start all processes with the "
      "same command, code and files"
    )
  meet()


def from_first(value: Any) -> Any:
  """Process 0's value, on every process.

  Args:
    value: JSON-able; of the others it is not looked at.
  """
  if not is_several():
    return value
  key = f"amopo/first/{next(_numbers)}"
  if global_state.process_id == 0:
    _client().key_value_set(key, json.dumps(value))
    return value
  return json.loads(_client().blocking_key_value_get(key, _EXCHANGE_MS))


def to_first(value: Any) -> list[Any]:
  """All processes' values in their order on process 0; on the others this process's alone.

  Args:
    value: JSON-able.
  """
  if not is_several():
    return [value]
  client, prefix = _client(), f"amopo/all/{next(_numbers)}"
  if global_state.process_id:
    client.key_value_set(f"{prefix}/{global_state.process_id}", json.dumps(value))
    return [value]
  keys = [f"{prefix}/{process}" for process in range(1, global_state.num_processes)]
  texts = [client.blocking_key_value_get(key, _EXCHANGE_MS) for key in keys]
  client.key_value_delete(prefix)
  return [value, *map(json.loads, texts)]


def meet() -> None:
  """Returns when all processes have come here."""
  if is_several():
    _client().wait_at_barrier(f"amopo/{next(_numbers)}", _EXCHANGE_MS)


class Listener:
  """A thread that waits for the line of a process that failed, or is gone, and then ends this one."""

  def __init__(self):
    self._is_over, self._watch, self._signs = threading.Event(), Watch(), Signs(global_state)
    self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

  def start(self) -> None:
    """Begins to wait."""
    self._watch.start()
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread, before the runtime that it asks goes away."""
    self._is_over.set()
    self._thread.join()
    self._watch.stop()
    self._signs.leave()

  def _listen(self) -> None:
    while not self._is_over.is_set():
      try:
        text = _client().blocking_key_value_get(_FAULT, _LISTENING_MS)
      except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):  # nothing yet, says process 0
          self._watch.hear()
        self._signs.give()
        if gone := self._signs.missing(_LISTENING_MS / 1000):
          _stop_silent(gone)
        self._is_over.wait(0.1)
        continue
      self._watch.stop()  # the run is over: how long the others take to part is `_part`'s to limit
      process, line, status = json.loads(text)
      if process != global_state.process_id:
        print(f"process {process} stopped: {line}", file=sys.stderr, flush=True)
        _part(status)
      return


def _stop_silent(gone: list[int]) -> NoReturn:
  """Ends all processes, since some are gone without a word."""
  names = ", ".join(map(str, sorted(gone)))
  line = (
    f"process {names} gave no sign of life for {SILENT_SECONDS} s; it was killed, or its machine is gone; "
    "start all of them again with the same command"
  )
  print(line, file=sys.stderr, flush=True)
  stop_others(line, 1)
  os._exit(1)


@functools.cache
def listener() -> Listener:
  """The one of this process."""
  return Listener()


def _client() -> Any:
  return global_state.client


def _part(status: int) -> NoReturn:
  """Ends the process at once; process 0, which carries the texts, a moment after the others have read them.

  A process that finds process 0 gone while it ends itself is aborted by JAX's runtime, with a stack trace. Two threads
  may come here at once, for a mistake of this process and for that of another: the first one ends both.
  """
  _parting.acquire()
  client, last_resort = _client(), threading.Timer(_LONGEST_PARTING_SECONDS, os._exit, (status,))
  last_resort.daemon = True
  last_resort.start()  # a call to a process 0 that is gone may wait for ever
  sys.stdout.flush()
  sys.stderr.flush()
  with contextlib.suppress(Exception):
    client.key_value_set(f"{_GONE}/{global_state.process_id}", "")
    if global_state.process_id == 0:
      for process in range(1, global_state.num_processes):
        client.blocking_key_value_get(f"{_GONE}/{process}", int(1000 * _PARTING_SECONDS))
      threading.Event().wait(_LAST_SECONDS)
  os._exit(status)


def _differences(mine: Any, theirs: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
  """(path, mine, theirs) of the values in which two JSON trees differ."""
  if isinstance(mine, dict) and isinstance(theirs, dict):
    for key in sorted(mine.keys() | theirs.keys()):
      yield from _differences(mine.get(key), theirs.get(key), f"{where}.{key}")
  elif json.loads(json.dumps(mine)) != theirs:
    yield where, mine, theirs
