"""layout.py: what is laid out of a pair, and that draws of contexts are even and come from what is compared."""

import pickle

import numpy as np
import pytest

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.layout import EVERYTHING, Layout
from amopo_jax.types import InputError

GAP = np.asarray([0.5, 0.0, -0.25, 1.0], np.float32)


def pair(gap=GAP):
  one = np.zeros(2, np.int32)
  return EncodedPair((one,) * len(gap), (one, one), gap > 0, gap, 7, 0, "f:1")


def found(layout, gap=GAP):
  """Contexts with the chosen, and with the rejected response."""
  leaves = layout(pair(gap)).leaves
  return tuple([k for k, p in leaves if p == member] for member in (0, 1))


def test_everything_is_both_responses_in_all_contexts():
  assert found(EVERYTHING) == ([0, 1, 2, 3], [0, 1, 2, 3])
  assert pair().leaves == EVERYTHING(pair()).leaves


@pytest.mark.parametrize(
  "layout, expected",
  [
    (Layout(rejected="none"), ([0, 1, 2, 3], [])),
    (Layout(rejected="agreeing"), ([0, 1, 2, 3], [0, 3])),
    (Layout("agreeing", "agreeing"), ([0, 3], [0, 3])),
    (Layout("decided", "decided"), ([0, 2, 3], [0, 2, 3])),
  ],
)
def test_contexts_by_what_their_dimension_says(layout, expected):
  assert found(layout) == expected


def test_a_pair_of_which_nothing_is_looked_at_keeps_one_sequence():
  assert found(Layout("agreeing", "agreeing"), np.asarray([0.0, -1.0], np.float32)) == ([0], [])


def test_layouts_pickle_for_the_worker_processes():
  layout = pickle.loads(pickle.dumps(Layout(rejected="agreeing", contexts=1)))
  assert pickle.loads(pickle.dumps(layout.draw))(layout(pair()), np.random.default_rng(0)).leaves


def test_unknown_contexts_are_refused():
  with pytest.raises(InputError, match="unknown contexts 'some'; choose one of all, none"):
    Layout(chosen="some")


@pytest.mark.parametrize(
  "layout, among",
  [(Layout(), [0, 1, 2, 3]), (Layout(rejected="agreeing"), [0, 3]), (Layout(rejected="none"), [0, 1, 2, 3])],
)
def test_contexts_are_drawn_evenly_from_those_that_are_compared(layout, among):
  layout, rng = Layout(layout.chosen, layout.rejected, contexts=1), np.random.default_rng(0)
  laid_out = layout(pair())
  drawn = [layout.draw(laid_out, rng).is_laid_out for _ in range(2000)]
  assert all(one.any(1).sum() == 1 for one in drawn)
  counts = sum(one.any(1).astype(int) for one in drawn)
  assert np.flatnonzero(counts).tolist() == among
  np.testing.assert_allclose(counts[among] / 2000, 1 / len(among), atol=0.05)


def test_a_drawn_context_keeps_what_was_laid_out_of_it():
  layout = Layout(rejected="agreeing", contexts=2)
  assert layout.draw(layout(pair()), np.random.default_rng(0)).leaves == ((0, 0), (0, 1), (3, 0), (3, 1))
  assert len(Layout(contexts=3).draw(pair(), np.random.default_rng(0)).leaves) == 6
