"""The sums against `amopo score`'s, what is kept where, and a run that trains on them."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from rich.console import Console

from amopo_jax import reference as module
from amopo_jax.prepare import prepare
from amopo_jax.reference import reference_of
from amopo_jax.stopping import StoppedError, StopRequest
from amopo_jax.train import Outcome, train
from amopo_jax.writers import read_metrics


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache" / "amopo_jax" / "reference"


@pytest.fixture(scope="module")
def run(make_spec):
  return prepare(make_spec(objective__name="dpo", objective__beta=0.1), None)


def test_other_objectives_need_none(make_spec, tmp_path):
  run = prepare(make_spec(), None)
  assert reference_of(run, str(tmp_path), run.load_base()) is None
  assert list(tmp_path.iterdir()) == []


def test_every_pair_has_its_sums_and_they_are_kept(run, tmp_path, cache, monkeypatch):
  table = reference_of(run, str(tmp_path / "one"), run.load_base())
  datasets = (*run.data.train, *run.data.heldout)
  assert table.shape == (sum(map(len, datasets)), 2, 2)
  assert np.all(table < 0)
  assert [dataset.first for dataset in datasets] == [0, len(datasets[0])]
  monkeypatch.setattr(module, "_compute", None)
  np.testing.assert_array_equal(reference_of(run, str(tmp_path / "one"), run.load_base()), table)
  np.testing.assert_array_equal(reference_of(run, str(tmp_path / "two"), run.load_base()), table)  # of the machine
  assert len(list(cache.iterdir())) == 1
  shutil.rmtree(cache)
  np.testing.assert_array_equal(reference_of(run, str(tmp_path / "two"), run.load_base()), table)


def test_what_training_leaves_out_has_its_sums_all_the_same_and_under_the_same_name(run, make_spec, tmp_path):
  table = reference_of(run, str(tmp_path / "one"), run.load_base())
  keys = {"objective__alpha": "uniform", "objective__ties": "follow_dimension", "data__contexts_per_pair": 1}
  other = prepare(make_spec(objective__name="lambda_dpo", objective__beta=0.1, **keys), None)
  assert not other.data.train[0][0].is_laid_out.all() or other.data.train[0].recipe.layout.contexts == 1
  assert module._key(other) == module._key(run)
  np.testing.assert_allclose(
    module._compute(other, other.init().params, other.load_base(), StopRequest()), table, rtol=1e-5
  )


def test_a_model_that_was_trained_again_under_its_old_path_has_other_sums(run, tmp_path, cache):
  table = reference_of(run, str(tmp_path / "one"), run.load_base())
  state = run.init()
  again = run._replace(init=lambda: state._replace(params=jax.tree.map(lambda x: 1.5 * x, state.params)))
  assert np.abs(reference_of(again, str(tmp_path / "two"), run.load_base()) - table).max() > 0.1
  assert len(list(cache.iterdir())) == 2
  # A resumed run keeps the sums it began with.
  np.testing.assert_array_equal(reference_of(again, str(tmp_path / "one"), run.load_base()), table)


def test_another_policy_or_other_pairs_have_another_name(run, make_spec):
  others = [{"seed": 5}, {"data__heldout_fraction": 0.0, "data__place": "before"}, {"model__compute_dtype": "bfloat16"}]
  others += [{"batch__group_rows": 4}]
  names = {module._key(run)}
  for changes in others:
    names.add(module._key(prepare(make_spec(objective__name="dpo", **changes), None)))
  assert len(names) == 1 + len(others)


def test_a_request_to_stop_ends_the_pass_and_keeps_nothing(run, tmp_path, cache):
  stop = StopRequest()
  stop.signal_name = "SIGTERM"
  with pytest.raises(StoppedError):
    reference_of(run, str(tmp_path / "one"), run.load_base(), stop)
  assert not cache.exists()
  assert not list((tmp_path / "one").glob("*.npy"))


def test_a_run_that_is_asked_to_stop_meanwhile_says_so_and_can_be_started_again(make_spec, tmp_path, monkeypatch):
  spec = make_spec(objective__name="dpo", objective__beta=0.5, train__steps=2)

  def interrupted(*given):
    os.kill(os.getpid(), signal.SIGTERM)
    return compute(*given)

  compute = module._compute
  with monkeypatch.context() as patch:
    patch.setattr(module, "_compute", interrupted)
    assert train(spec, str(tmp_path / "run"), Console(quiet=True)) == Outcome(0, "SIGTERM")
  assert not list((tmp_path / "run").glob("reference-*.npy"))
  assert train(spec, str(tmp_path / "run"), Console(quiet=True)) == Outcome(2, "")


def test_texts_that_were_edited_in_place_have_other_sums(run, make_spec, world, tmp_path):
  lines = (world / "train.jsonl").read_text().splitlines()
  record = json.loads(lines[0])
  record["responses"][0]["content"] += " more"
  train_file = tmp_path / "train.jsonl"

  def key(first):
    train_file.write_text("\n".join([first, *lines[1:]]) + "\n")
    return module._key(prepare(make_spec(objective__name="dpo", data__train__world__path=str(train_file)), None))

  assert key(json.dumps(record)) != key(lines[0])
  assert key(lines[0]) == key(lines[0])


def test_dpo_starts_at_log_two_and_learns(make_spec, tmp_path):
  spec = make_spec(objective__name="dpo", objective__beta=0.5, train__epochs=2, train__log_every=1)
  train(spec, str(tmp_path / "run"), Console(quiet=True))
  lines = [line for line in read_metrics(str(tmp_path / "run")) if "loss" in line]
  assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
  assert lines[-1]["loss"] < lines[0]["loss"]
  evaluations = [line["eval_loss"] for line in read_metrics(str(tmp_path / "run")) if "eval_loss" in line]
  assert evaluations[0] == pytest.approx(np.log(2), abs=1e-4)
