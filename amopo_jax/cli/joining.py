"""The flags by which a verb runs as several processes, and the run as one of them."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from absl import flags

JOINING = ("train", "score", "generate", "export", "lab")
"""The verbs that may run as several processes."""

_LATE_SECONDS = 60
"""For the others to come, where there is only a mistake to tell them."""

_NOT_COMPARED = ("process", "config")
"""Flags that each process has for itself, or that the verb compares when it has read them."""


def define_processes(values: flags.FlagValues) -> None:
  """--processes, --process, --coordinator, --join_timeout."""
  flags.DEFINE_string("processes", "1", "their number, or auto: Cloud TPU, GKE, Slurm or MPI know", flag_values=values)
  flags.DEFINE_integer("process", None, "index of this one, from 0; not with auto", flag_values=values)
  flags.DEFINE_string("coordinator", "", "HOST:PORT where process 0 listens; not with auto", flag_values=values)
  flags.DEFINE_integer(
    "join_timeout", 300, "seconds to wait for the others at the start", lower_bound=1, flag_values=values
  )


@contextlib.contextmanager
def joined(values: flags.FlagValues) -> Iterator[None]:
  """While it is open, this process is one of the run's; a failure inside it is the front door's to tell the others.

  Raises:
    InputError: process 0 was given other flags, or has another amopo_jax or JAX.
  """
  from amopo_jax import processes
  from amopo_jax.join import join, leave

  join(values.processes, values.process, values.coordinator, timeout=values.join_timeout)
  processes.agree("", _command(values))
  yield
  leave()


def join_to_tell(verb: str, arguments: Sequence[str], status: int) -> None:
  """After a mistake that was found before the others were met, such as a config that this host lacks: meets them.

  They would wait for this process else. It is ended if they do not come, or come late.

  Args:
    verb: of amopo; some have no several processes.
    arguments: what followed it, mistakes and all.
    status: to end with.
  """
  if verb not in JOINING:
    return
  values = flags.FlagValues()
  define_processes(values)
  try:
    values(["amopo", *arguments], known_only=True)
  except flags.Error:
    return
  if values.processes == "1":
    return
  from amopo_jax.join import join
  from amopo_jax.types import InputError, RunFailure

  seconds = min(values.join_timeout, _LATE_SECONDS)
  ending = threading.Timer(seconds, os._exit, (status,))
  ending.daemon = True
  ending.start()
  with contextlib.suppress(InputError, RunFailure):
    join(values.processes, values.process, values.coordinator, timeout=2 * _LATE_SECONDS)
  ending.cancel()


def _command(values: flags.FlagValues) -> dict[str, object]:
  """What all processes have to have alike, but for the config."""
  import jax

  from amopo_jax.provenance import source_digest

  names = [name for name in values if str(values.find_module_defining_flag(name)).startswith("amopo_jax.")]
  given: dict[str, object] = {
    f"--{name}": values[name].value for name in names if name.partition(".")[0] not in _NOT_COMPARED
  }
  return {**given, "amopo_jax": source_digest(), "jax": jax.__version__}
