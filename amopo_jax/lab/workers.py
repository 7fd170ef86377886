"""Processes that do jobs side by side, each on a core of its own, and end with the one that started them."""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from amopo_jax.data.pipeline import end_with_parent
from amopo_jax.host import CAN_PIN, free_cores
from amopo_jax.stopping import EXIT_STATUS

_ASKING_SECONDS = 0.5


@contextlib.contextmanager
def started(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
  """Workers, several with a core each; when this process is interrupted or asked to end, they save and end first."""
  context = multiprocessing.get_context("spawn")
  places, cores = context.Queue(), free_cores()
  for number in range(workers):
    places.put([cores[number % len(cores)]] if workers > 1 else cores)
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _settle, (places,))
  before = signal.signal(signal.SIGTERM, _raise_exit)
  try:
    yield pool
  except BaseException:
    _end_workers()
    raise
  finally:
    pool.shutdown(cancel_futures=True)
    signal.signal(signal.SIGTERM, before)


def _end_workers() -> None:
  """Asks until they are gone: one that trains takes note of it and saves, and would then wait for its next job."""
  while workers := multiprocessing.active_children():
    for worker in workers:
      worker.terminate()
    workers[0].join(_ASKING_SECONDS)


def _raise_exit(number: int, frame: FrameType | None) -> None:
  sys.exit(EXIT_STATUS)


def _settle(places: "multiprocessing.Queue[list[int]]") -> None:
  """Gives the worker its cores, before JAX counts them; libraries are heard only where something fails.

  Without the process that started it, however that ended, nobody waits for its answer, and another may do the job.
  """
  end_with_parent()
  logging.getLogger("absl").setLevel(logging.ERROR)
  cores = places.get()
  if CAN_PIN:
    os.sched_setaffinity(0, cores)
