"""A study from its jobs to its page, with jobs that only count how often they were called."""

from pathlib import Path

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import run_study as module
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.pool import Job
from amopo_jax.lab.run_study import run_study
from amopo_jax.lab.studies import SMOKE, STUDIES, Arm
from amopo_jax.types import RunFailure

STUDY = STUDIES["baselines"]._replace(arms=(Arm("amopo"), Arm("simpo")))
WINS = {mode: {"overall": 0.5} for mode in ("greedy", "sampled")}


def world(folder):
  return {key: dict.fromkeys(DIMENSIONS, 4.0) for key in ("chance", "optimum", "demonstrated")}


def policy(folder, score):
  with (folder / "calls").open("a") as file:
    file.write("called\n")
  found = {"overall": dict.fromkeys([*DIMENSIONS, "mean"], score)}
  more = {"accuracy": {"overall": 0.75}, "tokens_per_response": 10.0, "ended": 1.0, "sequences": 8, "seconds": 2.0}
  return {
    "scores": {"greedy": found, "sampled": found},
    "wins": WINS,
  } | more


def fail(folder):
  raise ValueError("no luck")


def jobs(simpo):
  return [
    Job("worlds/default-0", world, {}),
    Job("seed0/start", policy, {"score": 1.0}, ("worlds/default-0",)),
    Job("seed0/amopo", policy, {"score": 2.0}, ("seed0/start",)),
    simpo,
  ]


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Runs a study whose last job is given; hears what it tells."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
  spec = bundled_spec("lab")

  def run(found):
    monkeypatch.setattr(module, "jobs_of", lambda *given: found)
    told = []
    settings = {"start": spec, "run": spec, "size": SMOKE, "workers": 2, "command": "amopo lab", "tell": told.append}
    return run_study(STUDY, tmp_path / "study", **settings), told

  return run


def test_what_failed_is_on_the_page_and_an_error_and_the_same_call_does_that_alone(run):
  with pytest.raises(RunFailure, match=r"report\.md: 1 of 4 jobs are not done") as error:
    run(jobs(Job("seed0/simpo", fail, {}, ("seed0/start",))))
  assert "- seed0/simpo: ValueError: no luck" in Path(str(error.value).partition(":")[0]).read_text()
  page, told = run(jobs(Job("seed0/simpo", policy, {"score": 3.0}, ("seed0/start",))))
  assert told[0] == "3 of 4 jobs are done already"
  assert "Not done" not in page.read_text()
  calls = page.parents[2] / "seed0" / "amopo" / "calls"
  assert calls.read_text() == "called\n"


def test_where_nothing_comes_to_an_end_the_reason_is_the_error(run):
  with pytest.raises(RunFailure, match="no job came to an end; ValueError: no luck"):
    run([Job("worlds/default-0", world, {}), Job("seed0/start", fail, {}, ("worlds/default-0",))])
