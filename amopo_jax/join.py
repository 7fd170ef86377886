"""The start and the end of a run of several processes, which find each other by their cluster or their flags."""

import importlib.util
import os
import socket
import sys
import threading
from typing import Any

import jax

from amopo_jax import processes as others
from amopo_jax.types import InputError, RunFailure

HEARTBEAT_SECONDS = 3 * others.SILENT_SECONDS
"""After so long without a sign of life, JAX's runtime takes a process for dead and aborts all others. Its signs are
half as far apart, so an abort comes as soon as half of this after a death: our own line must come before."""

_MPI = (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK"))
"""Variables that Open MPI, and MPICH and Intel MPI, set for each process: how many, and which one."""


def join(processes: str, process: int | None, coordinator: str, *, timeout: int) -> None:
  """Waits for the other processes of the run; before anything else of JAX is used.

  Args:
    processes: their number, or "auto": the cluster's environment says all (Cloud TPU, GKE, Slurm, Open MPI to 4; any
      MPI where mpi4py is installed).
    process: index of this one, from 0; None with "auto".
    coordinator: HOST:PORT at which process 0 listens and all others find it; "" with "auto".
    timeout: seconds to wait for all of them.

  Raises:
    InputError: the three do not fit together, no cluster was found, or process 0 cannot listen there.
    RunFailure: the runtime of the processes could not be set up.
  """
  _check(processes, process, coordinator)
  if processes == "1":
    return
  found = _by_cluster() if processes == "auto" else _explicit(int(processes), process, coordinator)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, and ends nothing
  # The runtime would end the process with a stack trace: it gets more time than we wait.
  late = threading.Timer(timeout, _give_up, (processes, process, coordinator, timeout))
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(
      initialization_timeout=timeout + 60, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **found
    )
  except (ValueError, TypeError) as error:
    raise InputError(
      f"--processes=auto: no cluster was found (Cloud TPU, GKE, Slurm, Open MPI: {error}); "
      "give --processes=N --process=I --coordinator=HOST:PORT"
    ) from error
  except jax.errors.JaxRuntimeError as error:
    reason = " ".join(str(error).split())[:200]
    raise RunFailure(
      f"the {processes} processes did not find together ({reason}); see that each has a --process of its own, and "
      "start all of them again"
    ) from error
  finally:
    late.cancel()
  if others.is_several():
    others.listener().start()


def leave() -> None:
  """Waits for the others to finish, and parts from them."""
  if others.is_several():
    others.listener().stop()
    jax.distributed.shutdown()


def _give_up(processes: str, process: int | None, coordinator: str, timeout: int) -> None:
  where = f" at {coordinator}" if coordinator else ""
  print(
    f"amopo: process {process if process is not None else '(auto)'} waited {timeout} s{where} for all {processes} "
    "processes to join; see whether each was started, with the same --coordinator, and can reach it",
    file=sys.stderr,
    flush=True,
  )
  os._exit(1)  # what launchers try again: a machine may be late, or have been taken away


def _by_cluster() -> dict[str, Any]:
  """How JAX finds the others by the environment.

  Only Open MPI up to 4 says where process 0 is; of a later one, of MPICH and of Intel MPI, mpi4py finds out.
  """
  names = next((names for names in _MPI if names[0] in os.environ and names[1] in os.environ), None)
  if names is None or "OMPI_MCA_orte_hnp_uri" in os.environ or "SLURM_JOB_ID" in os.environ:
    return {}
  if importlib.util.find_spec("mpi4py"):
    return {"cluster_detection_method": "mpi4py"}
  size, rank = (os.environ[name] for name in names)
  raise InputError(
    f"--processes=auto: this MPI does not say where process 0 is; pip install mpi4py, or give --processes={size} "
    f"--process={rank} --coordinator=HOST:PORT (in a shell: ${names[0]}, ${names[1]})"
  )


def _check(processes: str, process: int | None, coordinator: str) -> None:
  if processes in ("auto", "1"):
    if process is not None or coordinator:
      raise InputError(
        f"--processes={processes}: takes neither --process nor --coordinator; give --processes=N as well"
      )
    return
  if not processes.isdecimal() or int(processes) < 1:
    raise InputError(f"--processes={processes}: is neither auto nor a number of processes")
  if process is None or not coordinator:
    missing = (
      "--process=I, the index of this one" if process is None else "--coordinator=HOST:PORT, where process 0 listens"
    )
    raise InputError(f"--processes={processes}: give {missing}, too")
  if not 0 <= process < int(processes):
    raise InputError(f"--process={process}: is not in 0 to {int(processes) - 1}, the indices of {processes} processes")
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal():
    raise InputError(f"--coordinator={coordinator}: is not HOST:PORT, such as 10.0.0.2:8476")


def _explicit(processes: int, process: int | None, coordinator: str) -> dict[str, Any]:
  if process == 0:
    _check_port(coordinator)
  return {
    "coordinator_address": coordinator,
    "num_processes": processes,
    "process_id": process,
    "cluster_detection_method": "deactivate",
  }


def _check_port(coordinator: str) -> None:
  """Sees that process 0 can listen there: where it cannot, JAX's runtime may end without a word."""
  family, everywhere = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "")
  with socket.socket(family) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # that of a run that has just ended is free
    try:
      probe.bind((everywhere, int(coordinator.rpartition(":")[2])))
    except (OSError, OverflowError) as error:
      raise InputError(
        f"--coordinator={coordinator}: process 0 cannot listen there ({error}); choose a free port"
      ) from error
