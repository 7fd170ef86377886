import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from amopo_jax.lock import hold_workdir
from amopo_jax.types import InputError

HOLDER = """
import sys, time
from amopo_jax.lock import hold_workdir
with hold_workdir(sys.argv[1]):
  print("held", flush=True)
  time.sleep(60)
"""


def test_a_second_run_is_refused_with_the_number_of_the_first_until_that_is_killed(tmp_path):
  holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
  assert holder.stdout is not None
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(InputError, match=f"process {holder.pid}"), hold_workdir(str(tmp_path / "run")):
    pass
  os.kill(holder.pid, signal.SIGKILL)
  holder.wait()
  with hold_workdir(str(tmp_path / "run")):
    assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_remote_folder_is_not_held(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with hold_workdir("gs://bucket/run"):
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
  def refuse(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", refuse)
  with hold_workdir(str(tmp_path)):
    assert "has no locks" in caplog.text
