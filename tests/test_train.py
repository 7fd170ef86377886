"""Whole runs of a tiny model: what they leave behind, and that they can be stopped and broken anywhere."""

import io
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from amopo_jax.checkpoint import Checkpoints
from amopo_jax.feed import Feed
from amopo_jax.prepare import prepare
from amopo_jax.stopping import EXIT_STATUS, StopRequest
from amopo_jax.train import _Loop, train
from amopo_jax.types import InputError, RunFailure
from amopo_jax.writers import MetricWriter, read_metrics
from tests.xla import flags

ROOT = pathlib.Path(__file__).parent.parent


def final_state(workdir):
  """Every array of the newest checkpoint, by name."""
  step = Checkpoints(str(workdir)).latest_step()
  with ocp.StandardCheckpointer() as reader:
    found = reader.restore(pathlib.Path(workdir) / "checkpoints" / str(step) / "state")
  return step, {
    jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(found)
  }


def assert_same_run(ours, theirs):
  (step, a), (other, b) = final_state(ours), final_state(theirs)
  assert step == other
  assert a.keys() == b.keys()
  for name, value in a.items():
    np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_a_run_leaves_metrics_figure_table_and_checkpoint(trained):
  workdir, spoken = trained
  lines = read_metrics(str(workdir))
  evaluations = [line for line in lines if "eval_loss" in line]
  steps = [line["step"] for line in lines if "loss" in line]
  assert steps == list(range(1, len(steps) + 1))
  assert [line["step"] for line in evaluations] == [0, steps[-1]]
  assert {"loss", "grad_norm", "learning_rate", "alpha/helpfulness", "rewards/margins/correctness"} <= lines[1].keys()
  assert (workdir / "margins.png").read_bytes().startswith(b"\x89PNG")
  assert "| helpfulness |" in (workdir / "summary.md").read_text()
  assert Checkpoints(str(workdir)).latest_step() == steps[-1]
  assert lines[-2]["loss"] < lines[1]["loss"]
  assert "⟦" in spoken
  assert "tied / inverted: helpfulness" in spoken


def test_a_complete_run_that_is_started_again_does_nothing_and_says_so(trained, make_spec, console):
  workdir, _ = trained
  before = (workdir / "metrics.jsonl").read_text(), final_state(workdir)[0]
  outcome = train(make_spec(train__epochs=3), str(workdir), console)
  assert not outcome.stopped_by
  assert ((workdir / "metrics.jsonl").read_text(), outcome.step) == before
  assert "resumed at step" in console.file.getvalue()


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"optim__clip": 1.0, "train__epochs": 3}, r"another config: config\.optim\.clip: 3\.0 != 1\.0"),
    ({"train__epochs": 4}, r"another config: config\.train\.epochs"),
  ],
)
def test_the_workdir_of_another_config_is_refused_and_left_alone(trained, make_spec, console, overrides, message):
  workdir, _ = trained
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
  with pytest.raises(InputError, match=message):
    train(make_spec(**overrides), str(workdir), console)
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.fixture
def compiled_at(monkeypatch):
  """How much had been compiled at each line of metrics, added to while the test runs."""
  compiled, seen_at = [], []
  listen = lambda name, seconds, **kwargs: compiled.append(name) if "backend_compile" in name else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  write = MetricWriter.write
  monkeypatch.setattr(MetricWriter, "write", lambda self, *args: (seen_at.append(len(compiled)), write(self, *args))[1])
  yield seen_at
  jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_compiles_after_the_first_step_nor_after_that_of_a_resumed_run(
  make_spec, console, tmp_path, compiled_at
):
  spec, workdir = make_spec(train__epochs=4, train__eval_every=4, train__save_every=3), tmp_path / "run"
  train(spec, str(workdir), console)
  assert len(compiled_at) > 5
  assert compiled_at[-1] > 0, "the listener heard nothing, so the test could not fail"
  assert compiled_at[-1] == compiled_at[1]
  for step in Checkpoints(str(workdir)).steps()[1:]:
    shutil.rmtree(workdir / "checkpoints" / str(step))
  before = len(compiled_at)
  train(spec, str(workdir), console)
  assert "resumed at step" in console.file.getvalue()
  resumed = compiled_at[before:]
  assert len(resumed) > 2
  assert resumed[0] > compiled_at[before - 1]
  assert resumed[-1] == resumed[0]


@pytest.fixture
def order(monkeypatch):
  """("dispatch" | "fetch", step) in the order in which a run did it, and whether a step took the old state's place."""
  found, gone, tell = [], [], _Loop._report

  def watched(*args):
    run = prepare(*args)

    def train_step(state, *rest):
      found.append(("dispatch", len(gone) + 1))
      old = jax.tree.leaves(state.params)
      new = run.train_step(state, *rest)
      gone.append(all(leaf.is_deleted() for leaf in old))
      return new

    return run._replace(train_step=train_step)

  def report(self, pending):
    found.extend([("fetch", pending.step)] if pending else [])
    tell(self, pending)

  monkeypatch.setattr("amopo_jax.train.prepare", watched)
  monkeypatch.setattr(_Loop, "_report", report)
  return found, gone


def test_a_step_is_dispatched_before_the_metrics_of_the_one_before_are_fetched(make_spec, console, tmp_path, order):
  train(make_spec(train__epochs=3, train__eval_every=4), str(tmp_path), console)
  found, gone = order
  last = len(gone)
  assert last > 5
  expected = []
  for step in range(1, last + 1):
    expected.append(("dispatch", step))
    waits = step > 1 and (step - 1) % 4 != 0  # what was evaluated was fetched before
    expected += [("fetch", step - 1)] * waits + [("fetch", step)] * (step % 4 == 0 or step == last)
  assert found == expected
  assert all(gone), "the new state takes the place of the old one"


def stop_when_asked_often(times):
  """A `StopRequest.__bool__` that says yes from the given time on, wherever in the run it is asked."""
  count = itertools.count()

  def is_stopped(self):
    if next(count) >= times:
      self.signal_name = "SIGTERM"
    return bool(self.signal_name)

  return is_stopped


@pytest.fixture(scope="module")
def whole(make_spec, tmp_path_factory):
  """A spec with evaluations on the way, and the workdir of its uninterrupted run."""
  spec, workdir = make_spec(train__epochs=3, train__eval_every=2), tmp_path_factory.mktemp("whole") / "run"
  train(spec, str(workdir), Console(file=io.StringIO()))
  return spec, workdir


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_a_stop_anywhere_saves_and_the_resumed_run_ends_the_same(whole, console, tmp_path, monkeypatch, times):
  spec, finished = whole
  monkeypatch.setattr(StopRequest, "__bool__", stop_when_asked_often(times))
  assert train(spec, str(tmp_path), console).stopped_by == "SIGTERM"
  monkeypatch.undo()
  assert not train(spec, str(tmp_path), console).stopped_by
  assert_same_run(tmp_path, finished)
  keys = lambda workdir: sorted((line["step"], "eval_loss" in line) for line in read_metrics(str(workdir)))
  assert keys(tmp_path) == keys(finished)


def test_supervised_learning_has_the_chosen_responses_alone_and_compares_in_its_evaluations(
  make_spec, console, tmp_path
):
  spec = make_spec(objective__name="sft", objective__beta=1.0, train__steps=3, train__log_every=1)
  assert train(spec, str(tmp_path), console).step == 3
  lines = read_metrics(str(tmp_path))
  trained = next(line for line in lines if "loss" in line)
  evaluated = next(line for line in lines if "eval_loss" in line)
  assert trained["rewards/margins"] is None
  assert trained["rewards/rejected/helpfulness"] is None
  assert trained["rewards/chosen"] < 0
  assert 0 <= evaluated["eval_rewards/accuracies"] <= 1
  said = console.file.getvalue()
  assert "chosen: " in said
  assert "rejected: " not in said
  assert "margin" not in next(line for line in said.splitlines() if line.startswith("step 1/3"))


@pytest.mark.slow
def test_a_run_whose_input_stops_says_where_it_stands_and_ends(make_spec, console, tmp_path, monkeypatch, capfd):
  ended, draw = threading.Event(), Feed.__next__

  def draw_two(feed):
    if len(read_metrics(str(tmp_path / "run"))) > 2:
      ended.wait(90)
      raise StopIteration
    return draw(feed)

  monkeypatch.setattr(Feed, "__next__", draw_two)
  monkeypatch.setattr(os, "_exit", lambda status: ended.set() if status == 1 else None)
  spec = make_spec(train__steps=50, train__hang_minutes=0.5, train__save_every=0)
  assert train(spec, str(tmp_path / "run"), console).step < 50
  told = capfd.readouterr().err
  assert "in draw_two" in told
  assert "nothing has moved for 0.5 minutes" in told


def test_a_diverging_run_stops_with_step_and_norms_and_keeps_the_good_checkpoint(make_spec, console, tmp_path):
  spec = make_spec(train__steps=40, train__save_every=1, optim__learning_rate=1e30, optim__warmup_fraction=0.5)
  with pytest.raises(RunFailure, match=r"step \d+: not finite: loss .*grad_norm .*param_norm .*newest checkpoint is"):
    train(spec, str(tmp_path / "run"), console)
  _, arrays = final_state(tmp_path / "run")
  assert all(np.isfinite(value).all() for value in arrays.values())


def command(make_config, tmp_path, devices=2, **overrides):
  """A config file and the command line that trains it in a process of its own."""
  config = make_config(**overrides)
  path = tmp_path / "config.py"
  path.write_text(
    f"from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({config.to_dict()!r})\n"
  )
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": flags(devices),
    "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
    "PYTHONPATH": str(ROOT),
  }

  def start(workdir):
    arguments = [sys.executable, "-m", "amopo_jax", "train", f"--config={path}", f"--workdir={workdir}"]
    return subprocess.Popen(
      arguments, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

  return start


@pytest.mark.slow
def test_a_second_run_compiles_nothing_that_the_first_has_compiled(make_config, tmp_path):
  start = command(make_config, tmp_path, train__steps=2)
  compiled = []
  for name in ("first", "second"):
    process = start(tmp_path / name)
    spoken = process.communicate(timeout=300)[0]
    assert process.returncode == 0, spoken
    compiled.append({file.name for file in (tmp_path / "cache").iterdir() if not file.name.endswith("-atime")})
  assert compiled[0]
  assert compiled[1] == compiled[0]


def kill_at_step(process, workdir, step, number, delay=0.0):
  """Sends a signal once the metrics show a step; returns the exit status."""
  deadline = time.monotonic() + 300
  while process.poll() is None and time.monotonic() < deadline:
    if any(line["step"] >= step and "loss" in line for line in read_metrics(str(workdir))):
      time.sleep(delay)
      process.send_signal(number)
      break
    time.sleep(0.02)
  process.communicate(timeout=300)
  return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_on_one_cpu_kept_logits_change_nothing_of_a_run(make_config, tmp_path, accumulation):
  """One device is where they live in a place that outlives the step; evaluations share the score function."""
  found = {}
  for keep in (0.0, 0.1):
    settings = {"model__head_keep": keep, "batch__accumulation": accumulation, "train__eval_every": 3}
    process = command(make_config, tmp_path, devices=1, train__steps=4, **settings)(tmp_path / f"run{keep}")
    assert process.wait(300) == 0, process.stdout.read()
    found[keep] = read_metrics(str(tmp_path / f"run{keep}"))
  assert len(found[0.1]) == len(found[0.0]) > 4
  for kept, again in zip(found[0.1], found[0.0], strict=True):
    for name in {"loss", "grad_norm", "eval_loss"} & kept.keys():
      np.testing.assert_allclose(kept[name], again[name], rtol=1e-4)


KILLED = {
  "train__epochs": 3,
  "batch__accumulation": 2,
  "train__save_every": 2,
  "train__eval_every": 3,
  "batch__row_length": 256,
}


@pytest.fixture(scope="session")
def uninterrupted(make_config, tmp_path_factory):
  """The run that the killed ones are compared with, in a process like theirs."""
  folder = tmp_path_factory.mktemp("killed")
  start = command(make_config, folder, **KILLED)
  process = start(folder / "whole")
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out
  return start, folder


def test_sigterm_saves_and_the_same_command_goes_on_to_the_same_end(uninterrupted):
  start, folder = uninterrupted
  status = kill_at_step(start(folder / "term"), folder / "term", 2, signal.SIGTERM)
  assert status == EXIT_STATUS
  stopped_at = final_state(folder / "term")[0]
  assert stopped_at < final_state(folder / "whole")[0]
  process = start(folder / "term")
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0
  assert f"resumed at step {stopped_at}" in out
  assert_same_run(folder / "term", folder / "whole")


def test_a_corrupted_newest_checkpoint_costs_the_steps_since_the_one_before_and_is_reported(uninterrupted):
  start, folder = uninterrupted
  shutil.copytree(folder / "whole", folder / "broken")
  newest = max((folder / "broken" / "checkpoints").iterdir(), key=lambda path: int(path.name))
  for file in (newest / "state").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:100])
  process = start(folder / "broken")
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out
  assert f"checkpoints/{newest.name} cannot be read" in out
  assert "Traceback" not in out
  assert_same_run(folder / "broken", folder / "whole")


def kill_until_done(start, workdir, rng, most):
  """Kills a run again and again, each time a little further on, at a random moment."""
  for _ in range(most):
    reached = max((line["step"] for line in read_metrics(str(workdir))), default=0)
    status = kill_at_step(
      start(workdir), workdir, reached + rng.randint(1, 3), signal.SIGKILL, delay=rng.random() * 0.5
    )
    if status == 0:
      return
  process = start(workdir)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out


def test_sigkill_twice_and_started_again_ends_bit_identical(uninterrupted):
  start, folder = uninterrupted
  kill_until_done(start, folder / "kill", random.Random(0), most=2)
  assert_same_run(folder / "kill", folder / "whole")
  steps = [line["step"] for line in read_metrics(str(folder / "kill")) if "loss" in line]
  assert steps == sorted(set(steps))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_sigkill_many_times_at_random_moments_ends_bit_identical(uninterrupted, seed):
  start, folder = uninterrupted
  kill_until_done(start, folder / f"kill-{seed}", random.Random(seed), most=8)
  assert_same_run(folder / f"kill-{seed}", folder / "whole")


@pytest.mark.slow
def test_workers_change_nothing(make_config, uninterrupted, tmp_path):
  _, folder = uninterrupted
  process = command(make_config, tmp_path, **KILLED, data__workers=1)(folder / "workers")
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 0, out
  assert_same_run(folder / "workers", folder / "whole")


def mount_small_disk(path, size):
  path.mkdir()
  done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
  if done.returncode:
    pytest.skip("mounting a small disk needs root")


@pytest.mark.slow
def test_a_full_disk_stops_the_run_in_one_line_and_keeps_the_last_good_checkpoint(make_config, tmp_path):
  disk = tmp_path / "disk"
  mount_small_disk(disk, "1m")
  try:
    start = command(make_config, tmp_path, train__steps=30, train__save_every=1, train__keep=20, train__best_metric="")
    process = start(disk / "run")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1, out
    assert "make room and start again" in out.strip().splitlines()[-1]
    assert "Traceback" not in out
    kept = Checkpoints(str(disk / "run")).latest_step()
    assert kept is not None
    assert all(np.isfinite(value).all() for value in final_state(disk / "run")[1].values())
  finally:
    subprocess.run(["umount", "-l", str(disk)], check=True)


OTHER_PARTS = {
  "bfloat16, lion, no recomputation": {
    "model__compute_dtype": "bfloat16",
    "model__param_dtype": "bfloat16",
    "model__remat": "none",
    "optim__name": "lion",
    "optim__learning_rate": 3e-3,
    "optim__schedule": "linear",
    "objective__alpha": "jitter",
    "objective__ties": "follow_dimension",
    "objective__sft_weight": 0.2,
  },
  "adafactor, tensor and data parallel": {
    "model__remat": "dots",
    "optim__name": "adafactor",
    "optim__schedule": "constant",
    "objective__alpha": "fixed",
    "objective__fixed_alpha": (3.0, 1.0),
    "mesh__data": 2,
    "mesh__tensor": 2,
    "batch__accumulation": 2,
  },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_PARTS)
def test_a_run_of_other_parts_learns_too(make_spec, console, tmp_path, name):
  train(make_spec(train__epochs=2, **OTHER_PARTS[name]), str(tmp_path / "run"), console)
  lines = [line for line in read_metrics(str(tmp_path / "run")) if "loss" in line]
  assert lines[-1]["loss"] < lines[0]["loss"]
  if "fixed" in OTHER_PARTS[name].values():
    assert lines[0]["alpha/helpfulness"] == pytest.approx(0.75)


def test_metrics_are_json_lines(trained):
  workdir, _ = trained
  for line in (workdir / "metrics.jsonl").read_text().splitlines():
    assert json.loads(line)["step"] >= 0
