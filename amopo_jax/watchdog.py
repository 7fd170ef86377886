"""Ends a run in which nothing moves any more, so that a launcher starts it again.

A collective that waits for a device, a file system that does not answer: such a process gives signs of life and would
wait for ever, and its chips with it. The stacks of its threads are printed first: they say where it stands.
"""

import faulthandler
import os
import sys
import threading
from types import TracebackType

import jax

from amopo_jax import processes

_TICK = 1.0
_OTHERS_SECONDS = 10.0
"""Time for the other processes to come to the same end and print their own stacks, one of which shows the cause."""


class Watchdog:
  """Ends the process, and all others of the run, after some minutes without a beat.

      with Watchdog(minutes=60) as watchdog:
        for batch in feed:
          ...
          watchdog.beat()

  It counts its own wakeful seconds, so that a process that was suspended has its whole time again.

  Args:
    minutes: longest time between two beats; 0: any.
  """

  def __init__(self, minutes: float):
    self._minutes, self._beats, self._is_over = minutes, 0, threading.Event()
    self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

  def __enter__(self) -> "Watchdog":
    if self._minutes:
      self._thread.start()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._is_over.set()

  def beat(self) -> None:
    """Says that something has moved."""
    self._beats += 1

  def _watch(self) -> None:
    seen, seconds = self._beats, 0.0
    while not self._is_over.wait(_TICK):
      seconds = seconds + _TICK if self._beats == seen else 0.0
      seen = self._beats
      if seconds >= 60 * self._minutes:
        self._end()

  def _end(self) -> None:
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    line = (
      f"nothing has moved for {self._minutes:g} minutes (config.train.hang_minutes); above is where its threads stand; "
      "start again with the same command, which goes on from the newest checkpoint"
    )
    print(f"process {jax.process_index()}: {line}", file=sys.stderr, flush=True)
    if processes.is_several() and self._is_over.wait(_OTHERS_SECONDS):
      return  # it moved after all, and came to its end
    processes.stop_others(line, 1)
    os._exit(1)
