"""Fused attention over the trie in plain XLA: loops down the list of live blocks, for CPUs.

The algorithms are 1 and 2 of FlashAttention-2 (arXiv 2307.08691) with the list of `block_map` in place of the square:
a block of queries meets the blocks of keys that some of its tokens see, so time grows with the area of the tries.
A turn of the loop is a handful of matrix products that stay in a core's cache. On an accelerator a turn would be too
short; there the same list drives kernels.

Everything lies on its side, tokens last and scores as [keys, queries]: these are the products that XLA multiplies
fastest on a CPU, and a softmax over the first axis is arithmetic on whole rows (docs/decisions/0012).

Rows that are one block each have nothing to skip: a few of them are taken at once (`xla_rows`).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from amopo_jax.models.attention import xla_rows
from amopo_jax.models.attention.block_map import Blocks, inner, list_by_queries
from amopo_jax.models.attention.fused import HIDDEN, Kernel, Operands, Pull, Shape
from amopo_jax.models.attention.xla_rows import product

_SIZE = 128
"""Tokens of a block: smaller ones skip more, and make matrix products that are slow."""

_MOST_QUERIES = 1024
"""Members times queries of a block for which two blocks of queries are taken at a time: what a cache holds."""

_State = TypeVar("_State")


def xla_blocks() -> Kernel:
  """The loops; the dispatch gives them to CPUs only."""
  return Kernel(choose_blocks, _forward, _backward, fills_heads=False)


def choose_blocks(shape: Shape) -> Blocks:
  """128 keys and as many queries, or twice as many of few members; a short row whole."""
  if shape.length <= _SIZE:
    return Blocks(shape.length, shape.length)
  return Blocks(2 * _SIZE if 2 * _SIZE * shape.members <= _MOST_QUERIES else _SIZE, _SIZE)


class _Queries(NamedTuple):
  """A block of queries times `scale`, its members side by side for each key head."""

  index: Array
  q: Float[Array, "G Dh queries"]


class _Keys(NamedTuple):
  """A block of keys."""

  start: Array
  k: Float[Array, "G Dh keys"]
  v: Float[Array, "G Dh keys"]


class _Softmax(NamedTuple):
  """An online softmax (arXiv 1805.02867) and the sum that it weighs."""

  top: Float32[Array, "G queries"]
  total: Float32[Array, "G queries"]
  summed: Float32[Array, "G Dh queries"]


def _forward(x: Operands, blocks: Blocks) -> tuple[Array, Array]:
  if _is_whole(x, blocks) and xla_rows.are_few(x):
    return xla_rows.forward(x)
  groups, members, tokens, size = x.q.shape
  each_key_block = _walk(x, blocks)

  def one_block(i: Array, done: tuple[Array, Array]) -> tuple[Array, Array]:
    queries = _queries(x, i, blocks)

    def add(keys: _Keys, is_whole: bool, state: _Softmax) -> _Softmax:
      scores = _scores(x, queries, keys, is_whole, blocks)
      top = jnp.maximum(state.top, jnp.max(scores, axis=1))
      shares, shrink = jnp.exp(scores - top[:, None]), jnp.exp(state.top - top)
      summed = state.summed * shrink[:, None] + product("gdk,gkq->gdq", keys.v, shares.astype(x.v.dtype))
      return _Softmax(top, state.total * shrink + jnp.sum(shares, axis=1), summed)

    zeros = jnp.zeros((groups, members * blocks.queries), jnp.float32)
    nothing = _Softmax(jnp.full_like(zeros, HIDDEN), zeros, jnp.zeros((groups, size, zeros.shape[1]), jnp.float32))
    state = each_key_block(i, add, nothing)
    output = (state.summed / state.total[:, None]).astype(x.q.dtype)
    return _put(done[0], _turn(output), i, blocks), _put(done[1], state.top + jnp.log(state.total), i, blocks)

  zeros = jnp.zeros_like(x.q), jnp.zeros((groups, members, tokens), jnp.float32)
  return jax.lax.fori_loop(0, tokens // blocks.queries, one_block, zeros)


def _backward(x: Operands, pull: Pull, blocks: Blocks) -> tuple[Array, Array, Array]:
  if _is_whole(x, blocks) and xla_rows.are_few(x):
    return xla_rows.backward(x, pull)
  tokens = x.q.shape[2]
  each_key_block = _walk(x, blocks)

  def one_block(i: Array, done: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    queries = _queries(x, i, blocks)
    d_out, lse, delta = (_fold(part, i, blocks) for part in pull)
    d_out = _turn(d_out)

    def add(keys: _Keys, is_whole: bool, grads: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
      d_q, d_k, d_v = grads
      shares = jnp.exp(_scores(x, queries, keys, is_whole, blocks) - lse[:, None])
      d_shares = product("gdk,gdq->gkq", keys.v, d_out)
      d_scores = (shares * (d_shares - delta[:, None])).astype(x.q.dtype)
      d_q = d_q + product("gdk,gkq->gdq", keys.k, d_scores)
      d_k = _add_at(d_k, product("gdq,gkq->gdk", queries.q, d_scores), keys.start)
      d_v = _add_at(d_v, product("gdq,gkq->gdk", d_out, shares.astype(x.q.dtype)), keys.start)
      return d_q, d_k, d_v

    d_q, d_k, d_v = each_key_block(i, add, (jnp.zeros(queries.q.shape, jnp.float32), *done[1:]))
    return _put(done[0], _turn((d_q * x.scale).astype(x.q.dtype)), i, blocks), d_k, d_v

  zeros = jnp.zeros_like(x.q), *(jnp.zeros_like(_turn(y), jnp.float32) for y in (x.k, x.v))
  d_q, d_k, d_v = jax.lax.fori_loop(0, tokens // blocks.queries, one_block, zeros)
  return d_q, _turn(d_k).astype(x.k.dtype), _turn(d_v).astype(x.v.dtype)


def _is_whole(x: Operands, blocks: Blocks) -> bool:
  """Whether a row is one block."""
  return blocks.queries == blocks.keys == x.queries


def _walk(x: Operands, blocks: Blocks) -> Callable[[Array, Callable[[_Keys, bool, _State], _State], _State], _State]:
  """Makes `(i, add, state)`, which folds `add` over the live blocks of keys of query block i, the whole ones first."""
  live = list_by_queries(x.live(blocks), blocks, x.whole(blocks))
  assert live.middles is not None
  middles, turned = live.middles, (_turn(x.k), _turn(x.v))

  def each_key_block(i: Array, add: Callable[[_Keys, bool, _State], _State], state: _State) -> _State:
    def one(is_whole: bool, entry: Array, state: _State) -> _State:
      start = inner(live.entries[entry]) * blocks.keys
      keys, values = (jax.lax.dynamic_slice_in_dim(y, start, blocks.keys, axis=2) for y in turned)
      return add(_Keys(start, keys, values), is_whole, state)

    state = jax.lax.fori_loop(live.starts[i], middles[i], partial(one, True), state)
    return jax.lax.fori_loop(middles[i], live.starts[i + 1], partial(one, False), state)

  return each_key_block


def _queries(x: Operands, i: Array, blocks: Blocks) -> _Queries:
  index = x.query_starts(blocks)[i] + jnp.arange(blocks.queries)
  return _Queries(index, (_turn(_fold(x.q, i, blocks)) * x.scale).astype(x.q.dtype))


def _scores(
  x: Operands, queries: _Queries, keys: _Keys, is_whole: bool, blocks: Blocks
) -> Float32[Array, "G keys queries"]:
  """Scores, hidden where a query does not see a key."""
  scores = product("gdk,gdq->gkq", keys.k, queries.q)
  if is_whole:
    return scores
  visible = _visible(x, queries.index, keys.start, blocks)
  mask = lambda scores: jnp.where(jnp.tile(visible, (1, x.q.shape[1]))[None], scores, HIDDEN)
  # Under a condition that always holds: masked in memory of its own, not anew in each loop that reads the scores.
  return jax.lax.cond(keys.start >= 0, mask, lambda scores: scores, scores)


def _visible(x: Operands, query: Array, start: Array, blocks: Blocks) -> Bool[Array, "keys queries"]:
  mine = lambda y: jax.lax.dynamic_slice_in_dim(y, start, blocks.keys)[:, None]
  key = start + jnp.arange(blocks.keys)[:, None]
  visible = (key <= query[None, :]) & (query[None, :] < mine(x.end))
  if x.window is None or x.positions is None:
    return visible
  return visible & (x.positions[query][None, :] - mine(x.positions) < x.window)


def _fold(y: Float[Array, "G M T ..."], i: Array, blocks: Blocks) -> Float[Array, "G queries ..."]:
  """Block i of the tokens, as one list of all members' tokens."""
  mine = jax.lax.dynamic_slice_in_dim(y, i * blocks.queries, blocks.queries, axis=2)
  return mine.reshape(y.shape[0], -1, *y.shape[3:])


def _put(into: Float[Array, "G M T ..."], y: Float[Array, "G queries ..."], i: Array, blocks: Blocks) -> Array:
  apart = y.reshape(*into.shape[:2], blocks.queries, *into.shape[3:])
  return jax.lax.dynamic_update_slice_in_dim(into, apart, i * blocks.queries, axis=2)


def _add_at(into: Float[Array, "G Dh T"], y: Float[Array, "G Dh keys"], start: Array) -> Array:
  before = jax.lax.dynamic_slice_in_dim(into, start, y.shape[2], axis=2)
  return jax.lax.dynamic_update_slice_in_dim(into, before + y, start, axis=2)


def _turn(y: Float[Array, "G one other"]) -> Float[Array, "G other one"]:
  return y.transpose(0, 2, 1)
