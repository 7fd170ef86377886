"""A study from its jobs to its page, with jobs that only count how often they were called."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amopo_jax.cli.configs import bundled_spec
from amopo_jax.lab import run_study as module
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.pool import Job
from amopo_jax.lab.run_study import run_study
from amopo_jax.lab.studies import SMOKE, STUDIES, Arm
from amopo_jax.types import InputError, RunFailure

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


def test_a_folder_is_the_same_from_wherever_it_is_named(run, tmp_path, monkeypatch):
  asked, folder = jobs(Job("seed0/simpo", policy, {"score": 3.0}, ("seed0/start",))), tmp_path / "study"
  page, _ = run(asked)
  monkeypatch.chdir(tmp_path)
  assert page == folder / "reports" / "baselines" / "report.md"
  spec = bundled_spec("lab")
  settings = {
    "start": spec,
    "run": spec,
    "size": SMOKE,
    "workers": 2,
    "command": "amopo lab",
    "tell": lambda line: None,
  }
  assert run_study(STUDY, Path("study"), **settings) == page
  with pytest.raises(InputError, match="commas"):
    run_study(STUDY, Path("a,b"), **settings)


SMALL = ("--seeds=1", "--train=400", "--heldout=8", "--base_steps=2", "--start_steps=2", "--max_new=8", "--draws=1")


def start_study(out, study, *flags):
  command = [sys.executable, "-m", "amopo_jax", "lab", study, f"--out={out}", *flags]
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # one device
  return subprocess.Popen(
    command, env=env, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


OTHER_RECIPES = {
  "baselines": "only_helpfulness,only_correctness,only_instruction_following,soup,drawn,scored_sft,controllable,kto",
  "steering": "amopo,scored_sft,controllable",
  "dialogue": "amopo@dialogue,amopo_turn@dialogue,uniform_turn@dialogue",
  "weights": "learned,hardest,widest,matched_beta",
  "template": "amopo,amopo@after",
}
"""What the smoke run of CI leaves out."""


@pytest.mark.slow
@pytest.mark.parametrize("study", OTHER_RECIPES)
def test_other_recipes_run_through(study, tmp_path):
  arms = OTHER_RECIPES[study]
  running = start_study(tmp_path, study, "--smoke", f"--arms={arms}")
  said = running.communicate(timeout=900)[0]
  assert running.returncode == 0, said
  page = (tmp_path / "reports" / f"{study}-some" / "report.md").read_text()
  assert "## Not done" not in page
  scores = (tmp_path / "reports" / f"{study}-some" / "scores.csv").read_text()
  for arm in arms.split(","):
    assert f"\n0,{arm},sampled," in scores


@pytest.mark.slow
def test_a_study_whose_processes_are_killed_goes_on_in_the_middle_of_a_run(tmp_path):
  arm, killed = tmp_path / "seed0" / "simpo", start_study(tmp_path, "baselines", "--arms=simpo", "--steps=300", *SMALL)
  while not (arm / "run" / "checkpoints" / "50" / "_CHECKPOINT_METADATA").exists():
    assert killed.poll() is None, killed.communicate()[0]
    time.sleep(0.02)
  os.killpg(killed.pid, signal.SIGKILL)
  killed.wait()
  results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
  assert len(results) == 4  # two worlds, base, start
  again = start_study(tmp_path, "baselines", "--arms=simpo", "--steps=300", *SMALL)
  said = again.communicate(timeout=600)[0]
  assert again.returncode == 0, said
  assert "4 of 5 jobs are done already" in said
  assert "resumed at step" in (arm / "log.txt").read_text()
  assert {path: path.stat().st_mtime_ns for path in results} == results
  steps = [json.loads(line)["step"] for line in (arm / "run" / "metrics.jsonl").read_text().splitlines()]
  assert steps == sorted(set(steps))
