import itertools
import sys

import jax
import numpy as np
import pytest

from amopo_jax.build_data import num_streams
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.layout import Layout
from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.mesh import HOST, place_batch
from amopo_jax.models.hf_import import load_config
from amopo_jax.policy import read_run
from amopo_jax.prepare import open_workdir, prepare, start_or_resume, train_stream
from amopo_jax.types import InputError


@pytest.fixture(scope="module")
def run(make_spec):
  return prepare(make_spec(train__epochs=3), None)


def test_it_writes_nothing(make_spec, tmp_path):
  prepare(make_spec(), str(tmp_path / "run"))
  assert list(tmp_path.iterdir()) == []


def test_a_wandb_project_without_the_package_is_refused_before_anything_is_written(make_spec, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(InputError, match=r"config\.train\.wandb_project: .* not installed; pip install wandb"):
    prepare(make_spec(train__wandb_project="p"), str(tmp_path / "run"))
  assert list(tmp_path.iterdir()) == []


def test_steps_are_those_of_the_config_or_so_many_epochs(run, make_spec):
  assert prepare(make_spec(train__steps=17), None).num_steps == 17
  stream = train_stream(run.spec, run.data, range(num_streams(run.spec.batch)), num_workers=0)
  assert run.num_steps == sum(1 for _ in stream)


def test_training_pairs_hold_what_the_objective_looks_at_and_held_out_pairs_all(make_spec):
  keys = {
    "objective__ties": "mask_ties",
    "objective__sft_weight": 0.0,
    "data__contexts_per_pair": 1,
    "objective__alpha": "uniform",
  }
  data = prepare(make_spec(data__heldout={}, data__heldout_fraction=0.2, **keys), None).data
  assert data.train[0].recipe.layout == Layout("agreeing", "agreeing", contexts=1)
  assert data.heldout[0].recipe.layout == Layout()


def test_a_step_holds_both_responses_of_one_context_where_one_is_drawn(make_spec):
  spec = make_spec(data__contexts_per_pair=1, objective__alpha="uniform")
  run = prepare(spec, None)
  for groups in itertools.islice(train_stream(spec, run.data, range(num_streams(spec.batch)), num_workers=0), 3):
    for group in groups:
      slots = np.unique(group.rows.slot[group.rows.slot >= 0])
      assert len(slots) == 2 * count_pairs([group])
      assert len(np.unique(slots // 2)) == count_pairs([group])


def test_an_epoch_draws_every_pair_once(run, make_spec):
  stream = train_stream(make_spec(), run.data, range(num_streams(run.spec.batch)), num_workers=0)
  assert sum(count_pairs(groups) for groups in stream) == len(run.data.train[0])


def test_the_initial_state_is_as_described(run):
  state = run.init()
  same = jax.tree.map(
    lambda leaf, wanted: leaf.shape == wanted.shape and leaf.sharding == wanted.sharding, state, run.target
  )
  assert all(jax.tree.leaves(same))
  assert int(state.step) == 0
  np.testing.assert_array_equal(run.init().params["embed"]["weight"], state.params["embed"]["weight"])


def test_offloaded_moments_stay_with_the_hosts_and_change_nothing(run, make_spec):
  far = prepare(make_spec(train__epochs=3, optim__offload=True), None)
  kinds = lambda tree: {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree) if leaf.ndim}
  states = []
  for one in (run, far):
    groups = next(train_stream(one.spec, one.data, range(num_streams(one.spec.batch)), num_workers=0))
    batch = place_batch(collate(groups, accumulation=1, num_pairs=count_pairs(groups)), one.mesh)
    states.append(one.train_step(one.init(), batch)[0])
  assert kinds(states[1].opt_state) == kinds(far.init().opt_state) == {HOST}
  assert kinds(states[1].params) == kinds(states[0].params) != {HOST}
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_new_workdir_gets_the_record_and_what_an_export_needs(run, tmp_path):
  checkpoints = open_workdir(run, str(tmp_path / "run"))
  record = read_run(str(tmp_path / "run"))
  assert (record.spec, record.num_steps) == (run.spec, run.num_steps)
  assert load_config(tmp_path / "run" / "model")[0] == run.source.config
  assert load_tokenizer(tmp_path / "run" / "model").fingerprint == record.fingerprint
  assert start_or_resume(run, checkpoints).step == 0


def test_an_old_workdir_is_left_as_it_is_and_resumed(trained, run):
  workdir, _ = trained
  before = (workdir / "run.json").stat().st_mtime_ns
  restored = start_or_resume(run, open_workdir(run, str(workdir)))
  assert restored.step == run.num_steps == int(restored.state.step)
  assert restored.meta["tokenizer"] == run.data.tokenizer.fingerprint
  assert (workdir / "run.json").stat().st_mtime_ns == before


def test_a_broken_record_is_named(make_spec, tmp_path):
  (tmp_path / "run.json").write_text("{")
  with pytest.raises(InputError, match=r"run\.json: broken .*; restore the file or use a new workdir"):
    prepare(make_spec(), str(tmp_path))


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused(make_spec, minutes):
  with pytest.raises(InputError, match=r"config\.train\.hang_minutes: .* is not a number of minutes"):
    prepare(make_spec(train__hang_minutes=minutes), None)
