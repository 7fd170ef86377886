"""What one program computes on a GPU: the bodies of the kernels of `pallas_triton`.

A program has a block of queries of one head, or a block of keys, and walks down its part of the list. Scores are
[queries keys]; sums stay in registers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from amopo_jax.models.attention.block_map import Blocks, inner
from amopo_jax.models.attention.fused import HIDDEN


class Inputs(NamedTuple):
  """Operands of a kernel: arrays, how they are cut, or references."""

  q: Any
  k: Any
  v: Any
  end: Any
  positions: Any
  query_positions: Any
  query_starts: Any
  entries: Any
  starts: Any


class Pulled(NamedTuple):
  """Likewise what only the backward pass has."""

  d_out: Any
  lse: Any
  delta: Any


class _Queries(NamedTuple):
  """A block of queries: their numbers, their positions where there is a window, and their heads' values."""

  numbers: Array
  positions: Array | None
  q: Array


class _Keys(NamedTuple):
  """A block of keys likewise."""

  numbers: Array
  end: Array
  positions: Array | None
  k: Array
  v: Array


def forward_kernel(x: Inputs, output: Any, lse: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  """Output and logsumexp of a block of queries (FlashAttention-2, algorithm 1).

  Args:
    x: the queries cut, the rest whole; the list by queries.
    output, lse: results.
    blocks: tokens of a block.
    scale: factor of the scores.
    window: how many last positions a query sees; None: all.
  """
  block = pl.program_id(2)
  queries = _queries(x, block, blocks, x.q[0, 0])

  def visit(place: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    top, total, summed = state
    keys = _keys(x, inner(x.entries[place]), blocks)
    scores = _scores(queries, keys, scale, window)
    now = jnp.maximum(top, jnp.max(scores, axis=1))
    shares, shrink = jnp.exp(scores - now[:, None]), jnp.exp(top - now)
    summed = summed * shrink[:, None] + _product(shares.astype(keys.v.dtype), keys.v)
    return now, total * shrink + jnp.sum(shares, axis=1), summed

  nothing = jnp.zeros(blocks.queries, jnp.float32)
  state = nothing + HIDDEN, nothing, jnp.zeros(x.q.shape[2:], jnp.float32)
  top, total, summed = jax.lax.fori_loop(x.starts[block], x.starts[block + 1], visit, state)
  output[0, 0] = (summed / total[:, None]).astype(output.dtype)
  lse[0, 0] = top + jnp.log(total)


def query_kernel(x: Inputs, pulled: Pulled, d_q: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  """Gradient of a block of queries (algorithm 2).

  Args:
    x, pulled: what belongs to queries cut, the rest whole; the list by queries.
    d_q: result.
    blocks, scale, window: as in `forward_kernel`.
  """
  block = pl.program_id(2)
  queries = _queries(x, block, blocks, x.q[0, 0])
  mine = Pulled(pulled.d_out[0, 0], pulled.lse[0, 0], pulled.delta[0, 0])

  def visit(place: Array, summed: Array) -> Array:
    keys = _keys(x, inner(x.entries[place]), blocks)
    _, d_scores = _shares(queries, keys, mine, scale, window)
    return summed + _product(d_scores, keys.k)

  zeros = jnp.zeros(x.q.shape[2:], jnp.float32)
  d_q[0, 0] = jax.lax.fori_loop(x.starts[block], x.starts[block + 1], visit, zeros).astype(d_q.dtype)


def key_kernel(
  x: Inputs, pulled: Pulled, d_k: Any, d_v: Any, *, blocks: Blocks, scale: float, window: int | None
) -> None:
  """Gradients of a block of keys and of its values, summed over the heads that read them (algorithm 2).

  Args:
    x, pulled: whole, of one key head; the list by keys.
    d_k, d_v: results.
    blocks, scale, window: as in `forward_kernel`.
  """
  block, members = pl.program_id(1), x.q.shape[1]
  keys = _keys(x, block, blocks)

  def visit(step: Array, summed: tuple[Array, Array]) -> tuple[Array, Array]:
    place, member = jax.lax.div(step, members), jax.lax.rem(step, members)
    number = inner(x.entries[place])
    at = pl.ds(number * blocks.queries, blocks.queries)
    queries = _queries(x, number, blocks, x.q[0, member, at, :])
    theirs = Pulled(pulled.d_out[0, member, at, :], pulled.lse[0, member, at], pulled.delta[0, member, at])
    shares, d_scores = _shares(queries, keys, theirs, scale, window)
    return summed[0] + _product(d_scores.T, queries.q), summed[1] + _product(shares.T, theirs.d_out)

  zeros = jnp.zeros(keys.k.shape, jnp.float32)
  bounds = x.starts[block] * members, x.starts[block + 1] * members
  summed_k, summed_v = jax.lax.fori_loop(*bounds, visit, (zeros, zeros))
  d_k[0], d_v[0] = summed_k.astype(d_k.dtype), summed_v.astype(d_v.dtype)


def _shares(queries: _Queries, keys: _Keys, pulled: Pulled, scale: float, window: int | None) -> tuple[Array, Array]:
  """Shares of the keys in a query's output, and the gradient of the scores, both [queries keys] as operands."""
  shares = jnp.exp(_scores(queries, keys, scale, window) - pulled.lse[:, None])
  d_scores = shares * (_product(pulled.d_out, keys.v.T) - pulled.delta[:, None]) * scale
  return shares.astype(keys.k.dtype), d_scores.astype(keys.k.dtype)


def _scores(queries: _Queries, keys: _Keys, scale: float, window: int | None) -> Array:
  query = queries.numbers[:, None]
  visible = (keys.numbers[None, :] <= query) & (query < keys.end[None, :])
  if window is not None and queries.positions is not None and keys.positions is not None:
    visible &= queries.positions[:, None] - keys.positions[None, :] < window
  return jnp.where(visible, _product(queries.q, keys.k.T) * scale, HIDDEN)


def _product(x: Array, y: Array) -> Array:
  return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _queries(x: Inputs, block: Array, blocks: Blocks, q: Array) -> _Queries:
  at = pl.ds(block * blocks.queries, blocks.queries)
  positions = None if x.query_positions is None else x.query_positions[at]
  return _Queries(x.query_starts[block] + jnp.arange(blocks.queries), positions, q)


def _keys(x: Inputs, block: Array, blocks: Blocks) -> _Keys:
  first = block * blocks.keys
  at = pl.ds(first, blocks.keys)
  positions = None if x.positions is None else x.positions[at]
  return _Keys(first + jnp.arange(blocks.keys), x.end[at], positions, x.k[0, at, :], x.v[0, at, :])
