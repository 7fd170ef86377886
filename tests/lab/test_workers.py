"""Workers: their cores, and what becomes of them with the process that started them."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from amopo_jax.lab.pool import Job, run_jobs
from amopo_jax.stopping import stop_on_signals
from amopo_jax.types import RunFailure


def sleep(folder, seconds):
  time.sleep(seconds)
  return {}


def save_when_asked(folder, seconds):
  """As a training: a request to stop is noted, what is there is saved, and the job fails."""
  with stop_on_signals() as stop:
    (folder / "listens").write_text("")
    while not stop:
      time.sleep(0.05)
    time.sleep(seconds)
    (folder / "saved").write_text("")
  raise RunFailure(f"stopped by {stop.signal_name}")


def meet(folder, other):
  """Ends when another job has begun."""
  (folder / "here").write_text("")
  while not (folder.parent / other / "here").exists():
    time.sleep(0.05)
  return {"cores": sorted(os.sched_getaffinity(0))}


def test_workers_work_side_by_side_on_cores_of_their_own(tmp_path):
  found = run_jobs([Job("x", meet, {"other": "y"}), Job("y", meet, {"other": "x"})], tmp_path, workers=2)
  if len(os.sched_getaffinity(0)) > 1:
    assert [len(answer["cores"]) for answer in found.values()] == [1, 1]
    assert found["x"]["cores"] != found["y"]["cores"]


RUN = """
import signal, sys
from pathlib import Path
from amopo_jax.lab.pool import Job, run_jobs
from tests.lab.test_workers import save_when_asked, sleep

if __name__ == "__main__":
  signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell started in the background ignores it
  jobs = [Job(f"job{number}", sleep, {"seconds": 60}) for number in range(4)]
  if sys.argv[2:]:
    last = jobs[3]._replace(needs=("job0",))
    jobs = [Job("job0", save_when_asked, {"seconds": 1.0}), jobs[1]._replace(asked={"seconds": 0}), last]
  run_jobs(jobs, Path(sys.argv[1]), workers=2, tell=lambda line: print(line, flush=True))
"""


def start(folder, *words):
  """RUN as a process of its own."""
  (folder / "main.py").write_text(RUN)
  command = [sys.executable, str(folder / "main.py"), str(folder / "jobs"), *words]
  environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
  return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)


def is_gone(group, seconds=15):
  """Whether nobody of a process group is left before long; Python's own tracker of resources is the last to go."""
  for _ in range(10 * seconds):
    try:
      os.killpg(group, 0)
    except ProcessLookupError:
      return True
    time.sleep(0.1)
  return False


@pytest.mark.parametrize(
  ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_to_the_run_alone_ends_its_workers_too(tmp_path, number, status):
  run, deadline = start(tmp_path), time.monotonic() + 60
  while len(list((tmp_path / "jobs").glob("*/asked"))) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.1)
  os.kill(run.pid, number)
  assert run.wait(timeout=20) == status
  assert is_gone(run.pid)
  assert len(list((tmp_path / "jobs").iterdir())) == 2  # those that waited were not begun


def test_a_worker_that_saves_first_ends_too_also_beside_an_idle_one(tmp_path):
  run, deadline = start(tmp_path, "saving"), time.monotonic() + 60
  jobs = tmp_path / "jobs"
  while not ((jobs / "job0" / "listens").exists() and (jobs / "job1" / "result.json").exists()):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  os.kill(run.pid, signal.SIGTERM)
  try:
    assert run.wait(timeout=20) == 143
    assert (jobs / "job0" / "saved").exists()
    assert is_gone(run.pid)
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(run.pid, signal.SIGKILL)
