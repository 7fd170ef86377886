"""Real processes that do jobs, fail, are killed and go on."""

import json
import os
import signal

import pytest

from amopo_jax.lab.pool import Job, run_jobs, undone
from amopo_jax.stopping import StoppedError
from amopo_jax.types import InputError


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


def stop(folder):
  raise StoppedError("stopped by SIGTERM at step 3")


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
    [*chain(), Job("dies", halt_once, {}, ("b",)), *(Job(f"more{n}", add, {"numbers": []}) for n in "xy")],
    [],
  )
  answers = run_jobs(jobs, tmp_path, workers=1, tell=told.append)
  assert list(answers) == ["a", "b"]
  assert undone(jobs, answers, tmp_path) == dict.fromkeys(("dies", "morex", "morey"), "a worker was killed")
  assert "dies failed" in told[-1]
  assert run_jobs(jobs, tmp_path, workers=1)["dies"]["seen"]
  assert calls(tmp_path, "a") == 1


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
  assert answers["a"]["took"] > 0
  assert told[-1] == "2 of 4: bad failed: no luck in bad"
  assert undone(jobs, answers, tmp_path) == {"bad": "ValueError: no luck in bad", "after": "needs bad"}
  assert run_jobs(jobs, tmp_path, workers=1)["b"]["sum"] == 3
  assert [calls(tmp_path, name) for name in "ab"] == [1, 1]


def test_without_workers_a_job_that_a_signal_stopped_stops_the_rest(tmp_path):
  with pytest.raises(StoppedError, match="at step 3"):
    run_jobs([Job("stops", stop, {}), *chain()], tmp_path, workers=0)
  assert not (tmp_path / "a").exists()


def test_a_reason_that_could_not_be_written_is_no_error(tmp_path):
  (tmp_path / "bad").mkdir()
  (tmp_path / "bad" / "failed.txt").write_text("")
  assert undone([Job("bad", fail, {})], {}, tmp_path) == {"bad": "its reason could not be written"}
