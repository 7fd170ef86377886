import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.fit import Sized, _SubsetSums, plan_group
from amopo_jax.data.trie import size
from amopo_jax.types import InputError

seeds = st.integers(0, 2**32 - 1)


def flat_pair(length, num_contexts=1):
  """A pair whose trie has about `length` tokens: nothing shared, responses of one token."""
  prompt = max(1, length // num_contexts - 2)
  prompts = tuple(np.full(prompt, k, np.int32) for k in range(num_contexts))
  one = np.ones(1, np.int32)
  order = np.ones(num_contexts, bool)
  return Sized(EncodedPair(prompts, (one, one), order, order.astype(np.float32), 0, 0, "f:1"))


def row_sizes(pending, plan):
  return [sum(pending[run.pair].sizes[run.start][run.stop] for run in row) for row in plan]


@given(seed=seeds, num_contexts=st.integers(1, 6), is_whole=st.booleans())
def test_sizes_of_runs_are_sizes_of_tries(random_pair, seed, num_contexts, is_whole):
  rng = np.random.default_rng(seed)
  laid_out = rng.integers(0, 2, (num_contexts, 2)).astype(bool) | is_whole
  laid_out[rng.integers(num_contexts), rng.integers(2)] = True
  sized = Sized(dataclasses.replace(random_pair(rng, num_contexts), laid_out=laid_out))
  assert sorted(sized.leaves) == [(k, p) for k in range(num_contexts) for p in (0, 1) if laid_out[k, p]]
  for start in range(len(sized.leaves)):
    for stop in range(start, len(sized.leaves) + 1):
      assert sized.sizes[start][stop] == size(sized.encoded, sized.leaves[start:stop])
  assert sized.whole == size(sized.encoded, sized.leaves)


@given(sizes=st.lists(st.integers(1, 30), max_size=8), limit=st.integers(0, 60), most=st.integers(0, 4), data=st.data())
def test_subset_sums_are_those_of_brute_force(sizes, limit, most, data):
  sums = _SubsetSums(sizes, limit, most)
  gap = data.draw(st.integers(0, limit))
  subsets = [s for count in range(most + 1) for s in itertools.combinations(range(len(sizes)), count)]
  best = max(total for s in subsets if (total := sum(sizes[i] for i in s)) <= gap)
  assert sums.best(gap) == best
  members = sums.members(best)
  assert sum(sizes[i] for i in members) == best
  assert len(set(members)) == len(members) == min(len(s) for s in subsets if sum(sizes[i] for i in s) == best)


@settings(deadline=None, max_examples=60)
@given(
  seed=seeds,
  num_contexts=st.integers(1, 4),
  rows=st.integers(1, 5),
  row_length=st.integers(24, 120),
  max_pairs=st.integers(1, 9),
)
def test_a_plan_keeps_its_promises(random_pair, seed, num_contexts, rows, row_length, max_pairs):
  rng = np.random.default_rng(seed)
  pending = [Sized(random_pair(rng, num_contexts)) for _ in range(rng.integers(1, 12))]
  if not pending[0].fits(rows, row_length):
    with pytest.raises(InputError, match=r"pair -1: .* tokens do not fit"):
      plan_group(pending, rows=rows, row_length=row_length, max_pairs=max_pairs)
    return
  plan = plan_group(pending, rows=rows, row_length=row_length, max_pairs=max_pairs)
  assert len(plan) == rows
  assert max(row_sizes(pending, plan)) <= row_length
  leaves = {}
  for run in itertools.chain(*plan):
    leaves.setdefault(run.pair, []).extend(range(run.start, run.stop))
  assert 0 in leaves  # the oldest is always taken
  assert len(leaves) <= max_pairs
  assert all(sorted(found) == list(range(2 * num_contexts)) for found in leaves.values())


def test_whole_pairs_that_add_up_are_found():
  pending = [flat_pair(n) for n in (60, 70, 55, 40, 45, 30)]
  plan = plan_group(pending, rows=3, row_length=100, max_pairs=9)
  assert sorted(sorted(run.pair for run in row) for row in plan) == [[0, 3], [1, 5], [2, 4]]


def test_a_split_closes_the_gap_that_whole_pairs_leave():
  pending = [flat_pair(50), flat_pair(90, 3), flat_pair(85, 1)]
  plan = plan_group(pending, rows=2, row_length=100, max_pairs=9)
  runs = [run for row in plan for run in row if run.pair == 1]
  assert len(runs) == 2
  assert sum(run.stop - run.start for run in runs) == 6


def test_a_pair_larger_than_a_row_spreads():
  pending = [flat_pair(250, 4)]
  plan = plan_group(pending, rows=4, row_length=100, max_pairs=9)
  assert [len(row) for row in plan] == [1, 1, 1, 0] or sum(map(len, plan)) == 4
  assert sum(run.stop - run.start for row in plan for run in row) == 8


def test_a_large_pair_is_not_postponed_for_ever():
  pending = [flat_pair(20), flat_pair(250, 4), *(flat_pair(99) for _ in range(9))]
  plan = plan_group(pending, rows=6, row_length=100, max_pairs=20)
  assert 1 in {run.pair for row in plan for run in row}


def test_the_most_pairs_is_respected_even_when_there_is_room():
  pending = [flat_pair(10) for _ in range(30)]
  plan = plan_group(pending, rows=2, row_length=100, max_pairs=5)
  assert len({run.pair for row in plan for run in row}) == 5


@pytest.mark.parametrize("rows", [1, 2])
def test_a_sequence_longer_than_a_row_is_refused(rows):
  with pytest.raises(InputError, match=r"f:1: 130 tokens do not fit into \d rows of 100; use more or longer rows"):
    plan_group([flat_pair(130)], rows=rows, row_length=100, max_pairs=1)


def test_a_plan_is_deterministic(random_pair):
  rng = np.random.default_rng(0)
  pending = [Sized(random_pair(rng, 3)) for _ in range(10)]
  plans = [plan_group(pending, rows=3, row_length=60, max_pairs=6) for _ in range(2)]
  assert plans[0] == plans[1]
