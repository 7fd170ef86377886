"""What a process has of its machine: cores, and memory, which on a CPU the policy and the compiler share."""

import ctypes
import functools
import os

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"


CAN_PIN = hasattr(os, "sched_setaffinity")
"""Whether the system keeps processes to cores, as Linux does."""


def free_cores() -> list[int]:
  """The cores that this process may use; where the system does not say which, all of them by number."""
  return sorted(os.sched_getaffinity(0)) if CAN_PIN else list(range(os.cpu_count() or 1))


@functools.cache
def give_back_after_compiling() -> None:
  """From now on, memory that XLA's compiler has freed goes back to the system: about 0.3 GB for a train step.

  Else the C library keeps it, in pieces that no array fits into. Once per process; without effect where the C library
  is not glibc.
  """
  trim = getattr(_c_library(), "malloc_trim", None)
  if trim is not None:

    def give_back(event: str, *_: object, **__: object) -> None:
      if event == _COMPILED:
        trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)


def _c_library() -> ctypes.CDLL | None:
  try:
    return ctypes.CDLL(None)
  except (OSError, TypeError):
    return None
