"""Which blocks of queries and keys meet in the tries: what a kernel visits, and what it never fetches.

A block of queries and a block of keys are *live* if some query sees some key. In depth-first order this is two
comparisons per pair of blocks:

    the first key is no later than the last query, and some key's subtree reaches beyond the first query

The second is exact: if the keys come before the queries, the key that reaches furthest is seen by the first query;
if the blocks overlap, a token sees itself. A window of positions adds a bound, which may leave a dead block in.

The live pairs become a sorted list of numbers, computed on the device since tries are data. A kernel that walks down
the list does work in proportion to the tries' area, not to S × S; rows are numbered through, so that a list serves
them all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int32

from amopo_jax.models.attention.reference import Reach

END = jnp.iinfo(jnp.int32).max
"""What follows the last entry of a list; its blocks are no block's."""

_BITS = 16
"""Of the inner block in an entry, the flag `_IS_PARTIAL` among them; the outer one has the 15 above."""

_IS_PARTIAL = 1 << 15
"""Flag of an entry in a list that tells whole pairs from others: the pair needs its mask."""


class Blocks(NamedTuple):
  """Tokens per block.

  Attributes:
    queries: of a block of queries.
    keys: of a block of keys.
  """

  queries: int
  keys: int


class BlockList(NamedTuple):
  """Live pairs, sorted by their outer block and then by their inner one; of a split list, whole pairs come first.

  Attributes:
    entries: `outer << 16 | inner`, then END; block b of row r is number `r * blocks per row + b`.
    starts: for each outer block the place of its first entry, and last the number of entries.
    middles: of a split list, for each outer block the place behind its last whole pair; None: not split.
  """

  entries: Int32[Array, "N"]
  starts: Int32[Array, "M"]
  middles: Int32[Array, "_"] | None = None

  @property
  def count(self) -> Int32[Array, ""]:
    """How many pairs are live."""
    return self.starts[-1]


def live_blocks(
  reach: Reach, blocks: Blocks, window: int | None = None, *, queries: int | None = None
) -> Bool[Array, "R queries keys"]:
  """Marks the pairs of blocks in which some query sees some key.

  Args:
    reach: of the tokens; `end[i] > i`.
    blocks: tokens per block; they divide S and the number of queries.
    window: how many last positions a query sees; None: all.
    queries: of a row, from `reach.offset` on; None: S.
  """
  cut = _cut(reach, blocks, window, queries)
  live = (cut.first_key < cut.first_query + blocks.queries) & (jnp.max(cut.end, axis=-1) > cut.first_query)
  if cut.window is None:
    return live
  nearest = jnp.min(cut.query_positions, axis=-1) - jnp.max(cut.key_positions, axis=-1)
  return live & (nearest < cut.window)


def whole_blocks(
  reach: Reach, blocks: Blocks, window: int | None = None, *, queries: int | None = None
) -> Bool[Array, "R queries keys"]:
  """Marks the pairs of blocks in which every query sees every key: they need no mask.

  Args:
    reach, blocks, window, queries: as of `live_blocks`.
  """
  cut = _cut(reach, blocks, window, queries)
  last_query = cut.first_query + blocks.queries - 1
  whole = (cut.first_key + blocks.keys - 1 <= cut.first_query) & (jnp.min(cut.end, axis=-1) > last_query)
  if cut.window is None:
    return whole
  furthest = jnp.max(cut.query_positions, axis=-1) - jnp.min(cut.key_positions, axis=-1)
  return whole & (furthest < cut.window)


def list_by_queries(
  live: Bool[Array, "R queries keys"], blocks: Blocks, whole: Bool[Array, "R queries keys"] | None = None
) -> BlockList:
  """The list whose outer blocks are those of the queries: for what a query gathers from its keys.

  Args:
    live: of `live_blocks`.
    blocks: the same.
    whole: of `whole_blocks`, to split the list; None: it is not split.
  """
  return _list(live, whole, most=_most_live(live, blocks))


def list_by_keys(
  live: Bool[Array, "R queries keys"], blocks: Blocks, whole: Bool[Array, "R queries keys"] | None = None
) -> BlockList:
  """The list whose outer blocks are those of the keys: for what a key gathers from its queries."""
  turned = None if whole is None else whole.transpose(0, 2, 1)
  return _list(live.transpose(0, 2, 1), turned, most=_most_live(live, blocks))


def with_every_key(live: Bool[Array, "R queries keys"]) -> Bool[Array, "R queries keys"]:
  """With the first block of queries for every block of keys that no query sees: for a kernel that writes a gradient of
  what it visits alone."""
  return live.at[:, 0].set(live[:, 0] | ~jnp.any(live, axis=1))


def outer(entry: Int[Array, "..."]) -> Int[Array, "..."]:
  """Number of an entry's outer block."""
  return jax.lax.shift_right_logical(entry, _BITS)


def inner(entry: Int[Array, "..."]) -> Int[Array, "..."]:
  """Number of an entry's inner block."""
  return entry & (_IS_PARTIAL - 1)


def most_live(length: int, blocks: Blocks, queries: int | None = None) -> int:
  """The most pairs that are live in a row of `length` tokens: those on and below the diagonal.

  Args:
    length: S.
    blocks: tokens per block.
    queries: of the row, with any offset that leaves the last block's first query in it; None: S, without an offset.
  """
  keys, queries = length // blocks.keys, length if queries is None else queries
  # The last queries see the most; where they begin within a block of keys, they reach into one more.
  before = length - queries + blocks.queries if queries < length else 0
  stops = range(before + blocks.queries, before + queries + 1, blocks.queries)
  return sum(min(keys, -(-stop // blocks.keys)) for stop in stops)


class _Cut(NamedTuple):
  """Tokens by block, to be broadcast against each other over [R queries keys].

  Attributes:
    first_query, first_key: number of each block's first token.
    end: of the keys of a block.
    query_positions, key_positions, window: of the tokens of a block; None without a window.
  """

  first_query: Int[Array, "1 queries 1"]
  first_key: Int[Array, "1 1 keys"]
  end: Int[Array, "R 1 keys size"]
  query_positions: Any
  key_positions: Any
  window: int | None


def _cut(reach: Reach, blocks: Blocks, window: int | None, queries: int | None) -> _Cut:
  rows, length = reach.end.shape
  queries = length if queries is None else queries
  first_query = jnp.arange(0, queries, blocks.queries)[None, :, None]
  first_query = first_query if reach.offset is None else first_query + reach.offset
  first_key = jnp.arange(0, length, blocks.keys)[None, None, :]
  by_keys = lambda x: x.reshape(rows, 1, -1, blocks.keys)
  positions = reach.query_positions(queries)
  if window is None or reach.positions is None or positions is None:
    return _Cut(first_query, first_key, by_keys(reach.end), None, None, None)
  by_queries = positions.reshape(rows, -1, 1, blocks.queries)
  return _Cut(first_query, first_key, by_keys(reach.end), by_queries, by_keys(reach.positions), window)


def _most_live(live: Bool[Array, "R queries keys"], blocks: Blocks) -> int:
  return most_live(live.shape[2] * blocks.keys, blocks, live.shape[1] * blocks.queries)


def _list(live: Bool[Array, "R outer inner"], whole: Bool[Array, "R outer inner"] | None, most: int) -> BlockList:
  rows, outers, inners = live.shape
  if max(rows * outers, rows * inners) >= 1 << (_BITS - 1):
    raise ValueError(f"attention: {rows} rows of {outers} × {inners} blocks are too many for one list")
  numbers = lambda count: jnp.arange(rows * count, dtype=jnp.int32).reshape(rows, count)
  entries = (numbers(outers)[:, :, None] << _BITS) | numbers(inners)[:, None, :]
  if whole is not None:
    entries = jnp.where(whole, entries, entries | _IS_PARTIAL)
  entries = jnp.sort(jnp.where(live, entries, END).reshape(-1))[: rows * most]
  count = lambda marked: jnp.sum(marked, axis=-1, dtype=jnp.int32).reshape(-1)
  starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(count(live), dtype=jnp.int32)])
  middles = None if whole is None else starts[:-1] + count(whole)
  return BlockList(jnp.concatenate([entries, jnp.full(1, END, jnp.int32)]), starts, middles)
