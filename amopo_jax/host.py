"""The process on a machine without accelerators, before jax is loaded: which platform, and whose memory."""

import ctypes
import glob
import importlib.util
import os

_KEEP = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}
"""Of glibc's mallopt: one heap for all threads, large arrays on it too, and none of it is given back."""


def set_up() -> None:
  """Readies a process that is the project's own; to be called before jax is imported. Accelerators change nothing."""
  if "JAX_PLATFORMS" not in os.environ and importlib.util.find_spec("libtpu") and not has_accelerator():
    os.environ["JAX_PLATFORMS"] = "cpu"  # libtpu, which the tests bring, writes much about finding nothing
  if os.environ.get("JAX_PLATFORMS") == "cpu" or not has_accelerator():
    keep_freed_memory()


def keep_freed_memory() -> None:
  """Has the C library keep what this process frees; only glibc, and only for threads that start later.

  XLA's temporaries are allocated anew in every call of a program, and glibc by default takes large arrays from the
  system and gives them back: every step on a CPU would pay for clean pages (docs/decisions/0007). Who sets a
  `MALLOC_…` variable or `GLIBC_TUNABLES` has chosen, and is left alone.
  """
  libc = ctypes.CDLL(None)
  if not hasattr(libc, "gnu_get_libc_version") or any(_is_choice(name) for name in os.environ):
    return
  for parameter, value in _KEEP.values():
    libc.mallopt(parameter, value)


def has_accelerator() -> bool:
  """Whether the system shows a TPU or a GPU."""
  files = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
  return any(glob.glob(pattern) for pattern in files)


def _is_choice(variable: str) -> bool:
  return variable == "GLIBC_TUNABLES" or (variable.startswith("MALLOC_") and variable.endswith("_"))
