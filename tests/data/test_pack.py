import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.fit import Sized
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import EMPTY_PLACE, PackSpec, empty_group, pack_all, pack_group, padding
from amopo_jax.data.sample import read_leaf
from amopo_jax.data.trie import Segment
from amopo_jax.types import NO_SLOT, InputError

seeds = st.integers(0, 2**32 - 1)


def read_group(group):
  """{slot: (tokens of prompt and response, number of scored tokens)} of a group, read off its rows."""
  read = {}
  for row in zip(*group.rows, strict=True):
    for slot in set(row[4].tolist()) - {NO_SLOT}:
      assert slot not in read  # a response is scored in one row only
      tokens, scored = read_leaf(Segment(*row), slot)
      assert (row[4] == slot).sum() == scored.sum()
      read[slot] = (tokens, int(scored.sum()))
  return read


@settings(deadline=None, max_examples=40)
@given(
  seed=seeds,
  num_contexts=st.integers(1, 4),
  rows=st.integers(1, 4),
  lookahead=st.integers(1, 8),
  layout=st.sampled_from(
    [Layout(), Layout(rejected="none"), Layout(rejected="agreeing"), Layout("agreeing", "agreeing")]
  ),
)
def test_packing_loses_and_repeats_nothing(random_pair, seed, num_contexts, rows, lookahead, layout):
  rng = np.random.default_rng(seed)
  made = [random_pair(rng, num_contexts, index=number) for number in range(rng.integers(1, 16))]
  pairs = [layout(pair) for pair in made]
  spec = PackSpec(row_length=24 * 2 * num_contexts, rows=rows, max_pairs=5, num_contexts=num_contexts)
  seen = []
  for group in pack_all(pairs, spec, lookahead=lookahead):
    read = read_group(group)
    for place in np.flatnonzero(group.index != EMPTY_PLACE):
      pair = pairs[group.index[place]]
      seen.append(pair.index)
      np.testing.assert_array_equal(group.is_ordered[place], pair.is_ordered)
      np.testing.assert_array_equal(group.score_gap[place], pair.score_gap)
      for k, p in pair.leaves:
        tokens, num_scored = read.pop((place * num_contexts + k) * 2 + p)
        np.testing.assert_array_equal(tokens, [*pair.prompts[k], *pair.responses[p]])
        assert num_scored == len(pair.responses[p])
    assert read == {}
  assert sorted(seen) == list(range(len(pairs)))


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_no_token_sees_another_pair_or_padding(random_pair, seed):
  rng = np.random.default_rng(seed)
  pending = [Sized(random_pair(rng, 2, index=number)) for number in range(8)]
  group, _ = pack_group(pending, PackSpec(70, 2, 8, 2))
  for tokens, positions, subtree_end, parent, slot in zip(*group.rows, strict=True):
    places = np.arange(len(tokens))
    visible = (places[None, :] <= places[:, None]) & (places[:, None] < subtree_end[None, :])
    real = subtree_end > 0
    np.testing.assert_array_equal(visible.sum(1), np.where(real, positions + 1, 0))
    assert (parent[positions == 0] == 0).all()
    assert (slot[~real] == NO_SLOT).all()
    assert (tokens[~real] == 0).all()


def test_empty_group_holds_nothing():
  group, taken = pack_group([], PackSpec(16, 2, 3, 4))
  assert taken == []
  for one, two in zip([*group.rows, *group[1:]], [*empty_group(PackSpec(16, 2, 3, 4)).rows, *group[1:]], strict=True):
    np.testing.assert_array_equal(one, two)
  assert (group.rows.slot == NO_SLOT).all()
  assert (group.index == EMPTY_PLACE).all()
  assert not group.rows.subtree_end.any()
  assert padding([group]) == 1


def test_fresh_arrays_every_time():
  spec = PackSpec(16, 2, 3, 4)
  empty_group(spec).rows.tokens[:] = 7
  assert not empty_group(spec).rows.tokens.any()


def realistic_pair(rng, index, *, num_contexts=4):
  """Lengths like those of UltraFeedback in four contexts with the instruction before the question."""
  question = rng.integers(0, 9, min(int(rng.lognormal(4.6, 1.0)) + 5, 500))
  instructions = [rng.integers(0, 9, length) for length in (27, 148, 148, 148)[:num_contexts]]
  header = np.arange(20)
  prompts = tuple(np.concatenate([header, own, question, [9]]).astype(np.int32) for own in instructions)
  lengths = np.minimum(rng.lognormal(5.2, 0.9, 2).astype(int) + 2, 480)
  responses = tuple(rng.integers(0, 9, length).astype(np.int32) for length in lengths)
  order = np.ones(num_contexts, bool)
  return EncodedPair(prompts, responses, order, order.astype(np.float32), index, 0, f"pair {index}")


def test_padding_is_small():
  rng = np.random.default_rng(0)
  pairs = [realistic_pair(rng, number) for number in range(250)]
  groups = pack_all(pairs, PackSpec(row_length=4096, rows=8, max_pairs=24, num_contexts=4), lookahead=48)
  assert len(groups) > 15
  assert padding(groups[:-4]) <= 0.03  # the last groups have few pairs to choose from
  assert padding(groups) <= 0.05 + 1 / len(groups)


def test_safe_length_always_fits():
  for rows, num_contexts in [(1, 4), (2, 3), (3, 4), (8, 4), (9, 1)]:
    spec = PackSpec(100, rows, 2, num_contexts)
    response = np.zeros(spec.safe_length // 2, np.int32)
    prompts = tuple(np.full(spec.safe_length - len(response), k, np.int32) for k in range(num_contexts))
    order = np.ones(num_contexts, bool)
    pair = EncodedPair(prompts, (response, response), order, order.astype(np.float32), 0, 0, "here")
    assert Sized(pair).fits(rows, 100)


@pytest.mark.parametrize("place", range(4))
def test_shapes_below_one_are_refused(place):
  shape = [16, 2, 3, 4]
  shape[place] = 0
  with pytest.raises(InputError, match="is 0; it must be at least 1"):
    PackSpec(*shape)


def test_what_a_turn_wants_lies_at_the_place_of_its_pair():
  spec = PackSpec(4096, 2, 3, 4)
  pair = realistic_pair(np.random.default_rng(0), 5)
  wish = np.array([1, 0, 2, 0], np.float32)
  group, _ = pack_group([Sized(dataclasses.replace(pair, wanted=wish)), Sized(pair)], spec)
  np.testing.assert_array_equal(group.wanted, [wish, np.ones(4), np.ones(4)])
