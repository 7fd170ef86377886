"""The oracle is the definition: a trie node is a distinct prefix of a prompt, an ancestor is a shorter prefix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.trie import lay_out, size, unshared
from amopo_jax.types import NO_SLOT

BASE = 30

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=8)  # three tokens: prefixes coincide often


@st.composite
def prompts_of_a_pair(draw):
  prompts = draw(st.lists(tokens, min_size=1, max_size=6))
  again = draw(st.lists(st.sampled_from(prompts), max_size=2))  # identical prompts
  longer = [one + draw(tokens) for one in draw(st.lists(st.sampled_from(prompts), max_size=2))]  # a prompt's extension
  return draw(st.permutations(prompts + again + longer))


@st.composite
def texts_and_leaves(draw):
  prompts = draw(prompts_of_a_pair())
  leaves = st.tuples(st.integers(0, len(prompts) - 1), st.integers(0, 1))
  return (prompts, draw(tokens), draw(tokens)), draw(st.lists(leaves, min_size=1, unique=True))


def make(prompts, chosen, rejected):
  arrays = [np.asarray(sequence, np.int32) for sequence in (*prompts, chosen, rejected)]
  count = len(prompts)
  order = np.ones(count, bool)
  return EncodedPair(tuple(arrays[:count]), tuple(arrays[count:]), order, order.astype(np.float32), 0, 0, "here")


def ancestors_by_parent(segment, place):
  path = [place]
  while segment.positions[path[-1]] > 0:
    path.append(int(segment.parent[path[-1]]))
  return path[::-1]


def ancestors_by_subtree_end(segment, place):
  places = np.arange(len(segment.tokens))
  return places[(places <= place) & (place < segment.subtree_end)].tolist()


@given(texts_and_leaves())
def test_every_path_spells_its_prompt_and_response(drawn):
  texts, leaves = drawn
  pair = make(*texts)
  segment = lay_out(pair, leaves, BASE)
  for k, p in leaves:
    scored = np.flatnonzero(segment.slot == BASE + 2 * k + p)
    np.testing.assert_array_equal(segment.tokens[scored], pair.responses[p])  # each response once
    path = ancestors_by_parent(segment, int(scored[-1]))
    np.testing.assert_array_equal(segment.tokens[path], [*pair.prompts[k], *pair.responses[p]])
    assert path[len(pair.prompts[k]) :] == scored.tolist()  # the prompt itself is not scored


@given(texts_and_leaves())
def test_subtree_end_and_parent_tell_the_same_tree(drawn):
  segment = lay_out(make(*drawn[0]), drawn[1], BASE)
  for place in range(len(segment.tokens)):
    assert ancestors_by_subtree_end(segment, place) == ancestors_by_parent(segment, place)


@given(texts_and_leaves())
def test_position_is_the_depth(drawn):
  segment = lay_out(make(*drawn[0]), drawn[1], BASE)
  depths = [len(ancestors_by_subtree_end(segment, place)) - 1 for place in range(len(segment.tokens))]
  np.testing.assert_array_equal(segment.positions, depths)


@given(texts_and_leaves())
def test_size_counts_each_distinct_prompt_prefix_once(drawn):
  texts, leaves = drawn
  pair = make(*texts)
  prompts = [pair.prompts[k].tolist() for k, _ in leaves]
  prefixes = {tuple(prompt[:stop]) for prompt in prompts for stop in range(1, len(prompt) + 1)}
  expected = len(prefixes) + sum(len(pair.responses[p]) for _, p in leaves)
  assert size(pair, leaves) == expected
  assert len(lay_out(pair, leaves, BASE).tokens) == expected


@given(texts_and_leaves())
def test_only_the_asked_leaves_are_scored(drawn):
  texts, leaves = drawn
  pair = make(*texts)
  slots = set(lay_out(pair, leaves, BASE).slot.tolist()) - {NO_SLOT}
  assert slots == {BASE + 2 * k + p for k, p in leaves}


@settings(max_examples=30)
@given(prompts_of_a_pair(), tokens, tokens)
def test_unshared_holds_the_same_sequences(prompts, chosen, rejected):
  pair = make(prompts, chosen, rejected)
  segments = unshared(pair, BASE)
  assert len(segments) == 2 * len(pair.prompts)
  for (k, p), segment in zip(pair.leaves, segments, strict=True):
    np.testing.assert_array_equal(segment.tokens, [*pair.prompts[k], *pair.responses[p]])
    np.testing.assert_array_equal(segment.positions, np.arange(len(segment.tokens)))
    assert (segment.subtree_end == len(segment.tokens)).all()
    np.testing.assert_array_equal(segment.slot[len(pair.prompts[k]) :], BASE + 2 * k + p)


def test_a_trie_written_by_hand():
  #        0: 5 ── 1: 6 ── 2: 1 (chosen of context 0)
  #                └────── 3: 7 ── 4: 1, 5: 2 (chosen, rejected of context 1)
  pair = make([[5, 6], [5, 6, 7]], [1], [2])
  segment = lay_out(pair, [(1, 1), (0, 0), (1, 0)], 0)
  np.testing.assert_array_equal(segment.tokens, [5, 6, 1, 7, 1, 2])
  np.testing.assert_array_equal(segment.positions, [0, 1, 2, 2, 3, 3])
  np.testing.assert_array_equal(segment.parent, [0, 0, 1, 1, 3, 3])
  np.testing.assert_array_equal(segment.subtree_end, [6, 6, 3, 6, 5, 6])
  np.testing.assert_array_equal(segment.slot, [-1, -1, 0, -1, 2, 3])


def test_equal_responses_are_not_merged():
  segment = lay_out(make([[5], [5]], [1, 2], [1, 2]), [(0, 0), (0, 1), (1, 0), (1, 1)], 0)
  assert segment.tokens.tolist() == [5] + [1, 2] * 4
  assert sorted(segment.slot.tolist()) == [-1, 0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_order_of_the_contexts_does_not_matter_to_the_size(order):
  prompts = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 5]]
  pair = make([prompts[k] for k in order], [7], [8])
  assert size(pair, pair.leaves) == 6 + 6
