"""Fused attention over the trie in plain XLA: loops down the list of live blocks, for CPUs.

The algorithms are 1 and 2 of FlashAttention-2 (arXiv 2307.08691) with the list of `block_map` in place of the square:
a block of queries meets the blocks of keys that some of its tokens see, so time grows with the area of the tries.
A turn of the loop is a handful of matrix products that stay in a core's cache. On an accelerator a turn would be too
short; there the same list drives kernels.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from amopo_jax.models.attention.block_map import Blocks, inner, list_by_queries
from amopo_jax.models.attention.fused import HIDDEN, Kernel, Operands, Pull, Shape

_SIZE = 128
"""Tokens of a block: smaller ones skip more, and make matrix products that are slow."""

_State = TypeVar("_State")


def xla_blocks() -> Kernel:
  """The loops; the dispatch gives them to CPUs only."""
  return Kernel(choose_blocks, _forward, _backward, fills_heads=False)


def choose_blocks(shape: Shape) -> Blocks:
  """128 tokens, or a short row whole."""
  size = min(_SIZE, shape.length)
  return Blocks(size, size)


class _Queries(NamedTuple):
  """A block of queries, its members folded into rows of one matrix per key head."""

  index: Array
  q: Float[Array, "G queries Dh"]


class _Keys(NamedTuple):
  """A block of keys."""

  start: Array
  k: Float[Array, "G keys Dh"]
  v: Float[Array, "G keys Dh"]


class _Softmax(NamedTuple):
  """An online softmax (arXiv 1805.02867) and the sum that it weighs."""

  top: Float32[Array, "G queries"]
  total: Float32[Array, "G queries"]
  summed: Float32[Array, "G queries Dh"]


def _forward(x: Operands, blocks: Blocks) -> tuple[Array, Array]:
  groups, members, tokens, size = x.q.shape
  each_key_block = _walk(x, blocks)

  def one_block(i: Array, done: tuple[Array, Array]) -> tuple[Array, Array]:
    queries = _queries(x, i, blocks)

    def add(keys: _Keys, state: _Softmax) -> _Softmax:
      scores = _scores(x, queries, keys, blocks)
      top = jnp.maximum(state.top, jnp.max(scores, axis=-1))
      shares, shrink = jnp.exp(scores - top[..., None]), jnp.exp(state.top - top)
      summed = state.summed * shrink[..., None] + _product("gqk,gkd->gqd", shares.astype(x.v.dtype), keys.v)
      return _Softmax(top, state.total * shrink + jnp.sum(shares, axis=-1), summed)

    zeros = jnp.zeros((groups, members * blocks.queries), jnp.float32)
    nothing = _Softmax(jnp.full_like(zeros, HIDDEN), zeros, jnp.zeros((*zeros.shape, size), jnp.float32))
    state = each_key_block(i, add, nothing)
    output = (state.summed / state.total[..., None]).astype(x.q.dtype)
    return _put(done[0], output, i, blocks), _put(done[1], state.top + jnp.log(state.total), i, blocks)

  zeros = jnp.zeros_like(x.q), jnp.zeros((groups, members, tokens), jnp.float32)
  return jax.lax.fori_loop(0, tokens // blocks.queries, one_block, zeros)


def _backward(x: Operands, pull: Pull, blocks: Blocks) -> tuple[Array, Array, Array]:
  tokens = x.q.shape[2]
  each_key_block = _walk(x, blocks)

  def one_block(i: Array, done: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    queries = _queries(x, i, blocks)
    d_out, lse, delta = (_fold(part, i, blocks) for part in pull)

    def add(keys: _Keys, grads: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
      d_q, d_k, d_v = grads
      shares = jnp.exp(_scores(x, queries, keys, blocks) - lse[..., None])
      d_shares = _product("gqd,gkd->gqk", d_out, keys.v)
      d_scores = (shares * (d_shares - delta[..., None]) * x.scale).astype(x.q.dtype)
      d_q = d_q + _product("gqk,gkd->gqd", d_scores, keys.k)
      d_k = _add_at(d_k, _product("gqk,gqd->gkd", d_scores, queries.q), keys.start)
      d_v = _add_at(d_v, _product("gqk,gqd->gkd", shares.astype(x.q.dtype), d_out), keys.start)
      return d_q, d_k, d_v

    d_q, d_k, d_v = each_key_block(i, add, (jnp.zeros(queries.q.shape, jnp.float32), *done[1:]))
    return _put(done[0], d_q.astype(x.q.dtype), i, blocks), d_k, d_v

  zeros = jnp.zeros_like(x.q), *(jnp.zeros(y.shape, jnp.float32) for y in (x.k, x.v))
  d_q, d_k, d_v = jax.lax.fori_loop(0, tokens // blocks.queries, one_block, zeros)
  return d_q, d_k.astype(x.k.dtype), d_v.astype(x.v.dtype)


def _walk(x: Operands, blocks: Blocks) -> Callable[[Array, Callable[[_Keys, _State], _State], _State], _State]:
  """Makes `(i, add, state)`, which folds `add` over the live blocks of keys of query block i."""
  live = list_by_queries(x.live(blocks), blocks)

  def each_key_block(i: Array, add: Callable[[_Keys, _State], _State], state: _State) -> _State:
    def one(entry: Array, state: _State) -> _State:
      start = inner(live.entries[entry]) * blocks.keys
      keys, values = (jax.lax.dynamic_slice_in_dim(y, start, blocks.keys, axis=1) for y in (x.k, x.v))
      return add(_Keys(start, keys, values), state)

    return jax.lax.fori_loop(live.starts[i], live.starts[i + 1], one, state)

  return each_key_block


def _queries(x: Operands, i: Array, blocks: Blocks) -> _Queries:
  return _Queries(x.query_starts(blocks)[i] + jnp.arange(blocks.queries), _fold(x.q, i, blocks))


def _scores(x: Operands, queries: _Queries, keys: _Keys, blocks: Blocks) -> Float32[Array, "G queries keys"]:
  groups, members = x.q.shape[:2]
  scores = _product("gqd,gkd->gqk", queries.q, keys.k) * x.scale
  visible = _visible(x, queries.index, keys.start, blocks)[None, None]
  apart = scores.reshape(groups, members, blocks.queries, blocks.keys)
  return jnp.where(visible, apart, HIDDEN).reshape(scores.shape)


def _visible(x: Operands, query: Array, start: Array, blocks: Blocks) -> Bool[Array, "queries keys"]:
  mine = lambda y: jax.lax.dynamic_slice_in_dim(y, start, blocks.keys)[None, :]
  key = start + jnp.arange(blocks.keys)[None, :]
  visible = (key <= query[:, None]) & (query[:, None] < mine(x.end))
  if x.window is None or x.positions is None:
    return visible
  return visible & (x.positions[query][:, None] - mine(x.positions) < x.window)


def _fold(y: Float[Array, "G M T ..."], i: Array, blocks: Blocks) -> Float[Array, "G queries ..."]:
  """Block i of the tokens, as one list of all members' tokens."""
  mine = jax.lax.dynamic_slice_in_dim(y, i * blocks.queries, blocks.queries, axis=2)
  return mine.reshape(y.shape[0], -1, *y.shape[3:])


def _put(into: Float[Array, "G M T ..."], y: Float[Array, "G queries ..."], i: Array, blocks: Blocks) -> Array:
  apart = y.reshape(*into.shape[:2], blocks.queries, *into.shape[3:])
  return jax.lax.dynamic_update_slice_in_dim(into, apart, i * blocks.queries, axis=2)


def _add_at(into: Array, y: Array, start: Array) -> Array:
  before = jax.lax.dynamic_slice_in_dim(into, start, y.shape[1], axis=1)
  return jax.lax.dynamic_update_slice_in_dim(into, before + y, start, axis=1)


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
