"""Several processes of one run: they agree on what they run, and stop together.

JAX's runtime carries small texts between them (its coordination service, in process 0). With these, a process that
stops leaves a line for the others, who print it and stop too, instead of waiting for it in a collective.

The functions that exchange something are called by all processes in the same order; with one process they do nothing.
"""

import contextlib
import functools
import itertools
import json
import os
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # the runtime's texts have no public door

from amopo_jax.differences import differences
from amopo_jax.stopping import tell
from amopo_jax.types import InputError

_FAULT, _GONE, _ALIVE, _LEFT = "amopo/fault", "amopo/gone", "amopo/alive", "left"
_LISTENING_MS = 1_000
SIGN_SECONDS, SILENT_SECONDS = 5, 40
"""How often a process gives a sign of life, and how long one may be without before process 0 ends the run: sooner
than JAX's runtime would, which aborts without a line that helps."""
_PARTING_SECONDS, _LAST_SECONDS = 5.0, 3.0
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


def wait_if_ending() -> None:
  """Never returns where another thread is ending this process, and has told why."""
  if _parting.locked():
    threading.Event().wait()


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
    what: names the value in the message; "" where its keys say enough.
    value: JSON-able.

  Raises:
    InputError: it has another.
  """
  if not is_several():
    return
  theirs = from_first(value)
  if theirs != json.loads(json.dumps(value)):
    path, mine, other = next(differences(value, theirs, what))
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
    self._is_over = threading.Event()
    self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

  def start(self) -> None:
    """Begins to wait."""
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread, before the runtime that it asks goes away."""
    self._is_over.set()
    self._thread.join()
    _sign(_LEFT)

  def _listen(self) -> None:
    signs = _Signs()
    while not self._is_over.is_set():
      try:
        text = _client().blocking_key_value_get(_FAULT, _LISTENING_MS)
      except jax.errors.JaxRuntimeError:  # nothing yet; where process 0 is gone, the runtime aborts this one at once
        signs.give()
        if gone := signs.missing():
          _stop_silent(gone)
        self._is_over.wait(0.1)
        continue
      process, line, status = json.loads(text)
      if process != global_state.process_id:
        tell(line, f"process {process} stopped: ")
        _part(status)
      return


class _Signs:
  """Signs of life of the processes; process 0 looks whether others still give theirs."""

  def __init__(self):
    self._count, self._given = 0, -float(SIGN_SECONDS)
    self._seen: dict[int, tuple[str, float]] = {}

  def give(self) -> None:
    """Gives one, unless the last one is young."""
    if time.monotonic() - self._given >= SIGN_SECONDS:
      self._count, self._given = self._count + 1, time.monotonic()
      _sign(str(self._count))

  def missing(self) -> list[int]:
    """The processes that have been silent for too long, on process 0."""
    if global_state.process_id or self._given + _LISTENING_MS / 1000 < time.monotonic():
      return []
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      for key, sign in _client().key_value_dir_get(_ALIVE):
        process = int(key.rsplit("/", 1)[1])
        if self._seen.get(process, ("", 0.0))[0] != sign:
          self._seen[process] = (sign, time.monotonic())
    late = time.monotonic() - SILENT_SECONDS
    return [process for process, (sign, at) in self._seen.items() if sign != _LEFT and at < late]


def _sign(text: str) -> None:
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    _client().key_value_set(f"{_ALIVE}/{global_state.process_id}", text, allow_overwrite=True)


def _stop_silent(gone: list[int]) -> NoReturn:
  """Ends all processes, since some are gone without a word."""
  names = ", ".join(map(str, sorted(gone)))
  line = (
    f"process {names} gave no sign of life for {SILENT_SECONDS} s; it was killed, or its machine is gone; "
    "start all of them again with the same command"
  )
  tell(line)
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
  client = _client()
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):  # nobody reads it any more
      stream.flush()
  with contextlib.suppress(Exception):
    client.key_value_set(f"{_GONE}/{global_state.process_id}", "")
    if global_state.process_id == 0:
      for process in range(1, global_state.num_processes):
        client.blocking_key_value_get(f"{_GONE}/{process}", int(1000 * _PARTING_SECONDS))
      threading.Event().wait(_LAST_SECONDS)
  os._exit(status)
