"""Signs of life between the processes of a run, and what to do when they stop coming."""

import contextlib
import os
import sys
import threading
import time
from typing import Any

import jax

SIGN_SECONDS, SILENT_SECONDS = 5, 40
"""How often a process gives a sign of life, and how long one may be without before the run ends: sooner than JAX's
runtime would, which aborts without a line that helps."""
_ALIVE, _LEFT = "amopo/alive", "left"
_LOOKING_SECONDS = 1.0


class Signs:
  """Gives the signs of this process; on process 0 also looks whether others still give theirs.

  Args:
    runtime: the state of `jax.distributed`: client, process_id.
  """

  def __init__(self, runtime: Any):
    self._runtime, self._count, self._given = runtime, 0, -float(SIGN_SECONDS)
    self._seen: dict[int, tuple[str, float]] = {}

  def give(self) -> None:
    """Gives one, unless the last one is young."""
    if time.monotonic() - self._given >= SIGN_SECONDS:
      self._count, self._given = self._count + 1, time.monotonic()
      self._put(str(self._count))

  def leave(self) -> None:
    """Says that there will be no more."""
    self._put(_LEFT)

  def missing(self, listening_seconds: float) -> list[int]:
    """The processes that have been silent for too long, on process 0; none while it was itself asleep."""
    if self._runtime.process_id or self._given + listening_seconds < time.monotonic():
      return []
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      for key, sign in self._runtime.client.key_value_dir_get(_ALIVE):
        process = int(key.rsplit("/", 1)[1])
        if self._seen.get(process, ("", 0.0))[0] != sign:
          self._seen[process] = (sign, time.monotonic())
    late = time.monotonic() - SILENT_SECONDS
    return [process for process, (sign, at) in self._seen.items() if sign != _LEFT and at < late]

  def _put(self, text: str) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._runtime.client.key_value_set(f"{_ALIVE}/{self._runtime.process_id}", text, allow_overwrite=True)


class Watch:
  """Ends this process when process 0 has not answered for too long, though calls to it may wait for ever.

  The runtime aborts a process whose process 0 is gone as soon as it notices, which it does not always do.
  """

  def __init__(self):
    self._is_over, self._heard = threading.Event(), time.monotonic()

  def start(self) -> None:
    """Begins to watch, in a thread."""
    self.hear()
    threading.Thread(target=self._look, name="watch", daemon=True).start()

  def hear(self) -> None:
    """Process 0 answered just now."""
    self._heard = time.monotonic()

  def stop(self) -> None:
    """Ends the thread."""
    self._is_over.set()

  def _look(self) -> None:
    looks = 0  # one alone may come after a sleep of this whole process, before anybody could hear anything
    while not self._is_over.wait(_LOOKING_SECONDS):
      looks = looks + 1 if time.monotonic() - self._heard > SILENT_SECONDS else 0
      if looks > 2:
        line = (
          f"process 0 has not answered for {SILENT_SECONDS} s; it was killed, or its machine is gone; "
          "start all processes again with the same command"
        )
        print(line, file=sys.stderr, flush=True)
        os._exit(1)
