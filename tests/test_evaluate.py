import jax
import numpy as np
import pytest

from amopo_jax.evaluate import evaluate
from amopo_jax.metrics import summarize
from amopo_jax.prepare import prepare
from amopo_jax.stopping import StopRequest
from amopo_jax.writers import read_metrics


def evaluated(run, params, datasets, stop=None):
  return evaluate(run.eval_step, params, datasets, pack=run.data.pack, layout=run.feed, stop=stop or StopRequest()).sums


@pytest.fixture(scope="module")
def run(make_spec):
  return prepare(make_spec(train__epochs=3), None)


@pytest.fixture(scope="module")
def params(run):
  return run.init().params


@pytest.fixture(scope="module")
def sums(run, params):
  return evaluated(run, params, run.data.heldout)


def test_every_pair_counts_once(sums, run):
  assert int(sums.pairs) == len(run.data.heldout[0])


def test_it_is_what_the_run_wrote_before_its_first_step(sums, trained, run):
  first = next(line for line in read_metrics(str(trained[0])) if "eval_loss" in line)
  assert first["step"] == 0
  found = summarize(sums, run.data.contexts.names, prefix="eval_")
  assert {name: first[name] for name in found} == pytest.approx(found, rel=1e-5)


def test_data_sets_add_up(sums, run, params):
  twice = evaluated(run, params, run.data.heldout * 2)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-5), twice, sums)


def test_without_held_out_pairs_there_is_nothing(run, params):
  assert evaluated(run, params, []) is None


def test_it_stops_between_batches(run, params):
  stop = StopRequest()
  stop.signal_name = "SIGTERM"
  assert evaluated(run, params, run.data.heldout, stop) is None
