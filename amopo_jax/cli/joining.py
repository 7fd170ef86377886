"""The flags by which a verb runs as several processes, and the run as one of them."""

import contextlib
from collections.abc import Iterator

from absl import flags


def define_processes(values: flags.FlagValues) -> None:
  """--processes, --process, --coordinator, --join_timeout."""
  flags.DEFINE_string(
    "processes", "1", "their number, or auto: Cloud TPU, GKE, Slurm or Open MPI know", flag_values=values
  )
  flags.DEFINE_integer("process", None, "index of this one, from 0; not with auto", flag_values=values)
  flags.DEFINE_string("coordinator", "", "HOST:PORT where process 0 listens; not with auto", flag_values=values)
  flags.DEFINE_integer(
    "join_timeout", 300, "seconds to wait for the others at the start", lower_bound=1, flag_values=values
  )


@contextlib.contextmanager
def joined(values: flags.FlagValues) -> Iterator[None]:
  """While it is open, this process is one of the run's; a failure inside it is the front door's to tell the others."""
  from amopo_jax.join import join, leave

  join(values.processes, values.process, values.coordinator, timeout=values.join_timeout)
  yield
  leave()
