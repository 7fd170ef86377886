"""Real processes that do jobs, fail, are killed and go on."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from amopo_jax.lab.pool import Job, run_jobs, undone
from amopo_jax.stopping import stop_on_signals
from amopo_jax.types import InputError, RunFailure


def add(folder, numbers, needs=()):
  """Notes that it was called; adds what is given and what the jobs it needs have found."""
  with (folder / "calls").open("a") as file:
    file.write("called\n")
  found = [json.loads((folder.parent / need / "result.json").read_text())["sum"] for need in needs]
  return {"sum": sum(numbers) + sum(found), "cores": sorted(os.sched_getaffinity(0))}


def fail(folder):
  raise ValueError(f"no luck in {folder.name}")


def halt_once(folder):
  """Kills its process the first time."""
  if not (folder / "seen").exists():
    (folder / "seen").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
  return {"seen": True}


def sleep(folder, seconds):
  began = time.time()
  time.sleep(seconds)
  return {"began": began, "ended": time.time()}


def save_when_asked(folder, seconds):
  """As a training: a request to stop is noted, what is there is saved, and the job fails."""
  with stop_on_signals() as stop:
    (folder / "listens").write_text("")
    while not stop:
      time.sleep(0.05)
    time.sleep(seconds)
    (folder / "saved").write_text("")
  raise RunFailure(f"stopped by {stop.signal_name}")


def chain(first=1):
  return [Job("a", add, {"numbers": [first]}), Job("b", add, {"numbers": [2], "needs": ["a"]}, ("a",))]


def calls(folder, name):
  return len((folder / name / "calls").read_text().splitlines())


def test_what_is_done_is_not_done_again(tmp_path):
  assert [run_jobs(chain(), tmp_path, workers=2)[name]["sum"] for name in "ab"] == [1, 3]
  more = [*chain(), Job("c", add, {"numbers": [3], "needs": ["b"]}, ("b",))]
  assert run_jobs(more, tmp_path, workers=1)["c"]["sum"] == 6
  assert [calls(tmp_path, name) for name in "abc"] == [1, 1, 1]


def test_another_question_makes_all_that_follows_from_it_new_but_throws_no_answer_away(tmp_path):
  run_jobs(chain(), tmp_path, workers=1)
  with pytest.raises(InputError, match=r"a: done with other steps.*, and so are 1 more; give another --out"):
    run_jobs(chain(first=5), tmp_path, workers=1)
  assert run_jobs(chain(), tmp_path, workers=1)["b"]["sum"] == 3
  for name in "ab":
    (tmp_path / name / "result.json").unlink()
  assert run_jobs(chain(first=5), tmp_path, workers=1)["b"]["sum"] == 7
  assert [calls(tmp_path, name) for name in "ab"] == [1, 1]  # in folders that were emptied


def test_a_failure_stops_only_what_needs_it(tmp_path):
  jobs = [Job("bad", fail, {}), Job("after", add, {"numbers": []}, ("bad",)), Job("other", add, {"numbers": [1]})]
  told = []
  answers = run_jobs(jobs, tmp_path, workers=2, tell=told.append)
  assert list(answers) == ["other"]
  assert undone(jobs, answers, tmp_path) == {"bad": "ValueError: no luck in bad", "after": "needs bad"}
  assert any("bad failed: no luck in bad" in line for line in told)


def test_a_killed_worker_ends_the_run_and_the_next_one_goes_on(tmp_path):
  jobs, told = (
    [*chain(), Job("dies", halt_once, {}, ("b",)), *(Job(f"more{n}", sleep, {"seconds": 0}) for n in "xy")],
    [],
  )
  answers = run_jobs(jobs, tmp_path, workers=1, tell=told.append)
  assert list(answers) == ["a", "b"]
  assert undone(jobs, answers, tmp_path) == dict.fromkeys(("dies", "morex", "morey"), "a worker was killed")
  assert "dies failed" in told[-1]
  assert run_jobs(jobs, tmp_path, workers=1)["dies"]["seen"]
  assert calls(tmp_path, "a") == 1


def test_workers_work_side_by_side_on_cores_of_their_own(tmp_path):
  jobs = [Job(name, sleep, {"seconds": 3.0}) for name in ("x", "y")]
  found = run_jobs(jobs, tmp_path, workers=2)
  assert 3.0 < found["x"]["took"] < 60
  assert found["x"]["began"] < found["y"]["ended"]
  assert found["y"]["began"] < found["x"]["ended"]
  if len(os.sched_getaffinity(0)) > 1:
    assert len(run_jobs(chain(), tmp_path, workers=2)["a"]["cores"]) == 1


RUN = """
import signal, sys
from pathlib import Path
from amopo_jax.lab.pool import Job, run_jobs
from tests.lab.test_pool import save_when_asked, sleep

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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
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


def test_jobs_that_do_not_fit_together_are_refused(tmp_path):
  with pytest.raises(InputError, match="job b: needs a before it"):
    run_jobs(chain()[1:], tmp_path, workers=1)
  with pytest.raises(InputError, match="two jobs a"):
    run_jobs([*chain(), *chain()], tmp_path, workers=1)


def test_without_workers_jobs_are_done_here_one_after_the_other(tmp_path):
  jobs, told = [*chain(), Job("bad", fail, {}), Job("after", add, {"numbers": []}, ("bad",))], []
  answers = run_jobs(jobs, tmp_path, workers=0, tell=told.append)
  assert {name: answer["sum"] for name, answer in answers.items()} == {"a": 1, "b": 3}
  assert answers["a"]["cores"] == sorted(os.sched_getaffinity(0))
  assert told[-1] == "2 of 4: bad failed: no luck in bad"
  assert undone(jobs, answers, tmp_path) == {"bad": "ValueError: no luck in bad", "after": "needs bad"}
  assert run_jobs(jobs, tmp_path, workers=1)["b"]["sum"] == 3
  assert [calls(tmp_path, name) for name in "ab"] == [1, 1]
