"""Oracle: a pair of blocks is live if the plain mask has a visible pair of tokens in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.models.attention import block_map
from amopo_jax.models.attention.block_map import Blocks
from amopo_jax.models.attention.reference import Reach

LENGTH = 48


def random_reach(seed: int, rows: int = 3, length: int = LENGTH) -> Reach:
  """Nested subtrees with padding at the end, and depths."""
  draw = np.random.default_rng(seed)
  end, positions = (np.zeros((rows, length), np.int32) for _ in range(2))
  for r in range(rows):
    path: list[int] = []
    for i in range(length - int(draw.integers(0, length))):
      if draw.random() < 0.2:
        del path[draw.integers(0, len(path) + 1) :]
      positions[r, i] = len(path)
      path.append(i)
      end[r, path] = i + 1
  itself = np.arange(1, length + 1, dtype=np.int32)
  return Reach(jnp.asarray(np.maximum(end, itself)), jnp.asarray(positions))


def seen(reach: Reach, window: int | None = None) -> np.ndarray:
  end, positions = np.asarray(reach.end), np.asarray(reach.positions)
  i, j = np.arange(end.shape[1])[:, None], np.arange(end.shape[1])[None, :]
  visible = (j <= i) & (i < end[:, None, :])
  return visible if window is None else visible & (positions[:, :, None] - positions[:, None, :] < window)


def any_in_blocks(visible: np.ndarray, blocks: Blocks) -> np.ndarray:
  rows, length, _ = visible.shape
  cut = visible.reshape(rows, length // blocks.queries, blocks.queries, length // blocks.keys, blocks.keys)
  return cut.any(axis=(2, 4))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([Blocks(4, 4), Blocks(8, 4), Blocks(4, 16), Blocks(48, 12)]))
def test_a_pair_is_live_exactly_if_some_query_sees_some_key(seed: int, blocks: Blocks):
  reach = random_reach(seed)
  live = block_map.live_blocks(reach, blocks)
  np.testing.assert_array_equal(live, any_in_blocks(seen(reach), blocks))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_a_window_hides_only_what_no_query_sees(seed: int, window: int):
  reach, blocks = random_reach(seed), Blocks(4, 4)
  live = np.asarray(block_map.live_blocks(reach, blocks, window))
  needed = any_in_blocks(seen(reach, window), blocks)
  assert not (needed & ~live).any()
  assert live.sum() <= block_map.live_blocks(reach, blocks).sum()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 31), st.integers(1, 12))
def test_queries_from_an_offset_on_meet_what_they_see(seed: int, offset: int, window: int):
  reach, blocks, queries = random_reach(seed)._replace(offset=jnp.asarray(offset)), Blocks(8, 4), 16
  whole = np.zeros((3, LENGTH + 32, LENGTH), bool)
  whole[:, :LENGTH] = seen(reach)
  cut = lambda visible: visible[:, offset : offset + queries].reshape(3, 2, 8, LENGTH // 4, 4).any(axis=(2, 4))
  live = np.asarray(block_map.live_blocks(reach, blocks, queries=queries))
  np.testing.assert_array_equal(live, cut(whole))
  assert live.sum(axis=(1, 2)).max() <= block_map.most_live(LENGTH, blocks, queries)
  whole[:, :LENGTH] = seen(reach, window)
  narrow = np.asarray(block_map.live_blocks(reach, blocks, window, queries=queries))
  assert not (cut(whole) & ~narrow).any()
  every = np.asarray(block_map.with_every_key(jnp.asarray(narrow)))
  assert every.any(axis=1).all()
  assert every.sum(axis=(1, 2)).max() <= block_map.most_live(LENGTH, blocks, queries)
  np.testing.assert_array_equal(every[:, 1:], narrow[:, 1:])


def all_in_blocks(visible: np.ndarray, blocks: Blocks) -> np.ndarray:
  return ~any_in_blocks(~visible, blocks)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([Blocks(4, 4), Blocks(8, 4), Blocks(4, 16), Blocks(2, 2)]))
def test_a_pair_is_whole_exactly_if_every_query_sees_every_key(seed: int, blocks: Blocks):
  reach = random_reach(seed)
  whole = block_map.whole_blocks(reach, blocks)
  np.testing.assert_array_equal(whole, all_in_blocks(seen(reach), blocks))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 31), st.integers(1, 12))
def test_a_whole_pair_needs_no_mask_behind_an_offset_and_in_a_window(seed: int, offset: int, window: int):
  reach, blocks, queries = random_reach(seed)._replace(offset=jnp.asarray(offset)), Blocks(2, 2), 16
  visible = np.zeros((3, LENGTH + 32, LENGTH), bool)
  cut = lambda visible: visible[:, offset : offset + queries].reshape(3, 8, 2, LENGTH // 2, 2).all(axis=(2, 4))
  visible[:, :LENGTH] = seen(reach)
  np.testing.assert_array_equal(block_map.whole_blocks(reach, blocks, queries=queries), cut(visible))
  visible[:, :LENGTH] = seen(reach, window)
  whole = np.asarray(block_map.whole_blocks(reach, blocks, window, queries=queries))
  assert not (whole & ~cut(visible)).any()


def test_a_window_on_a_plain_row_leaves_a_band():
  line = jnp.arange(LENGTH, dtype=jnp.int32)[None]
  live = block_map.live_blocks(Reach(jnp.full((1, LENGTH), LENGTH, jnp.int32), line), Blocks(4, 4), 4)
  np.testing.assert_array_equal(live.sum(-1)[0], [1] + [2] * 11)


@pytest.mark.parametrize("list_by, by_queries", [(block_map.list_by_queries, True), (block_map.list_by_keys, False)])
@pytest.mark.parametrize("blocks", [Blocks(4, 4), Blocks(8, 4), Blocks(4, 8)])
def test_a_list_holds_every_live_pair_once_in_order(list_by, by_queries: bool, blocks: Blocks):
  live = block_map.live_blocks(random_reach(3), blocks)
  found = jax.jit(list_by, static_argnums=1)(live, blocks)
  table = np.asarray(live) if by_queries else np.asarray(live).transpose(0, 2, 1)
  _, outers, inners = table.shape
  expected = [(r * outers + o, r * inners + i) for r, o, i in np.argwhere(table)]
  entries = np.asarray(found.entries)
  count = int(found.count)
  pairs = zip((entries[:count] >> 16).tolist(), (entries[:count] & 0xFFFF).tolist(), strict=True)
  assert list(pairs) == expected
  assert (entries[count:] == block_map.END).all()
  assert len(entries) > count
  starts = np.asarray(found.starts)
  for o in range(len(starts) - 1):
    assert [pair[0] for pair in expected[starts[o] : starts[o + 1]]] == [o] * (starts[o + 1] - starts[o])


@pytest.mark.parametrize("list_by, by_queries", [(block_map.list_by_queries, True), (block_map.list_by_keys, False)])
def test_a_split_list_holds_the_same_pairs_the_whole_ones_first(list_by, by_queries: bool):
  reach, blocks = random_reach(3), Blocks(4, 2)
  live, whole = block_map.live_blocks(reach, blocks), block_map.whole_blocks(reach, blocks)
  plain, split = list_by(live, blocks), list_by(live, blocks, whole)
  np.testing.assert_array_equal(split.starts, plain.starts)
  turn = lambda x: np.asarray(x) if by_queries else np.asarray(x).transpose(0, 2, 1)
  rows, _, inners = turn(live).shape
  assert turn(whole).any()
  by_outer = lambda x: turn(x).reshape(-1, inners)
  for o, (alive, is_whole) in enumerate(zip(by_outer(live), by_outer(whole), strict=True)):
    row = o // (len(by_outer(live)) // rows)
    found = np.asarray(block_map.inner(split.entries[split.starts[o] : split.starts[o + 1]])) - row * inners
    first = int(split.middles[o] - split.starts[o])
    assert found[:first].tolist() == np.flatnonzero(is_whole).tolist()
    assert found[first:].tolist() == np.flatnonzero(alive & ~is_whole).tolist()


def test_every_block_of_queries_and_of_keys_is_visited():
  live = block_map.live_blocks(random_reach(4), Blocks(4, 4))
  assert live.any(axis=-1).all()
  assert live.any(axis=-2).all()


@pytest.mark.parametrize("blocks", [Blocks(4, 4), Blocks(8, 4), Blocks(4, 8)])
def test_one_long_branch_is_the_most_that_can_be_live(blocks: Blocks):
  everything = Reach(jnp.full((1, LENGTH), LENGTH, jnp.int32), None)
  assert int(block_map.live_blocks(everything, blocks).sum()) == block_map.most_live(LENGTH, blocks)


def test_more_blocks_than_a_number_holds_are_refused():
  live = jnp.zeros((1 << 14, 2, 2), bool)
  with pytest.raises(ValueError, match="too many for one list"):
    block_map.list_by_queries(live, Blocks(4, 4))
