"""One process at a time in a workdir: two runs that write the same files would spoil both."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from amopo_jax.types import InputError

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Of a Lustre that is mounted without `flock`, or an NFS without its lock service."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_workdir(workdir: str) -> Iterator[None]:
  """While it is open, no other run can open the folder; the system lets go of it however the process ends.

  Remote folders have no locks and are not held, nor are those of file systems without; of several processes of one run,
  the first holds it.

  Args:
    workdir: made if missing.

  Raises:
    InputError: another process holds it.
  """
  if "://" in workdir or jax.process_index() != 0:
    yield
    return
  Path(workdir).mkdir(parents=True, exist_ok=True)
  with open(Path(workdir) / LOCK_FILE, "a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise InputError(
        f"{workdir}: another run (process {file.read().strip()}) is using it; wait for it, or use another folder"
      ) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      _log.warning("%s: its file system has no locks; see to it that no other run uses it", workdir)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    yield
