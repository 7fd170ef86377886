"""What one program computes on a GPU: the bodies of the kernels of `pallas_triton`.

A program has a block of queries of one head, or a block of keys, and walks down its part of the list: first the pairs
that need no mask, then the others. Sums stay in registers. What the special function unit offers is 2^x, so exponents
are in bits, and the factor of the scores goes into the same multiply-add.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from amopo_jax.models.attention.block_map import Blocks, inner

_LOG2_E = math.log2(math.e)

_HIDDEN = float(jnp.finfo(jnp.float32).min) / 4
"""Score of a key that a query does not see; times any factor of scores in bits it is still finite."""


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
  middles: Any


class Pulled(NamedTuple):
  """Likewise what only the backward pass has."""

  d_out: Any
  lse: Any
  delta: Any


class _Pair(NamedTuple):
  """A block of queries and a block of keys, by their numbers among all.

  Attributes:
    queries, keys: which ones.
    is_whole: every query sees every key.
  """

  queries: Array
  keys: Array
  is_whole: bool


def forward_kernel(x: Inputs, output: Any, lse: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  """Output and logsumexp of a block of queries (FlashAttention-2, algorithm 1).

  Args:
    x: the queries cut, the rest whole; the list by queries.
    output, lse: results.
    blocks: tokens of a block.
    scale: factor of the scores.
    window: how many last positions a query sees; None: all.
  """
  block, queries, bits = pl.program_id(2), x.q[0, 0], scale * _LOG2_E

  def visit(is_whole: bool, place: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    top, total, summed = state
    pair = _Pair(block, inner(x.entries[place]), is_whole)
    at = _at(pair.keys, blocks.keys)
    values = x.v[0, at, :]
    scores = _hide(_product(queries, x.k[0, at, :].T), _HIDDEN, x, pair, blocks, window)
    now = jnp.maximum(top, jnp.max(scores, axis=1))
    shares, shrink = jnp.exp2(scores * bits - (now * bits)[:, None]), jnp.exp2((top - now) * bits)
    summed = summed * shrink[:, None] + _product(shares.astype(values.dtype), values)
    return now, total * shrink + jnp.sum(shares, axis=1), summed

  nothing = jnp.zeros(blocks.queries, jnp.float32)
  state = nothing + _HIDDEN, nothing, jnp.zeros(x.q.shape[2:], jnp.float32)
  top, total, summed = _each(x, block, visit, state)
  output[0, 0] = (summed / total[:, None]).astype(output.dtype)
  lse[0, 0] = top * scale + jnp.log(total)


def query_kernel(x: Inputs, pulled: Pulled, d_q: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  """Gradient of a block of queries (algorithm 2).

  Args:
    x, pulled: what belongs to queries cut, the rest whole; the list by queries.
    d_q: result.
    blocks, scale, window: as in `forward_kernel`.
  """
  block, queries, bits = pl.program_id(2), x.q[0, 0], scale * _LOG2_E
  d_out, lse, delta = pulled.d_out[0, 0], pulled.lse[0, 0] * _LOG2_E, pulled.delta[0, 0]

  def visit(is_whole: bool, place: Array, summed: Array) -> Array:
    pair = _Pair(block, inner(x.entries[place]), is_whole)
    at = _at(pair.keys, blocks.keys)
    keys = x.k[0, at, :]
    shares = jnp.exp2(_product(queries, keys.T) * bits - lse[:, None])
    shares = _hide(shares, 0.0, x, pair, blocks, window)
    d_scores = shares * (_product(d_out, x.v[0, at, :].T) - delta[:, None])
    return summed + _product(d_scores.astype(keys.dtype), keys)

  summed = _each(x, block, visit, jnp.zeros(x.q.shape[2:], jnp.float32))
  d_q[0, 0] = (summed * scale).astype(d_q.dtype)


def key_kernel(
  x: Inputs, pulled: Pulled, d_k: Any, d_v: Any, *, blocks: Blocks, scale: float, window: int | None
) -> None:
  """Gradients of a block of keys and of its values, summed over the heads that read them (algorithm 2).

  Scores are [keys queries] here, so that no product needs one of them turned.

  Args:
    x, pulled: whole, of one key head; the list by keys.
    d_k, d_v: results.
    blocks, scale, window: as in `forward_kernel`.
  """
  block, members, bits = pl.program_id(1), x.q.shape[1], scale * _LOG2_E
  mine = _at(block, blocks.keys)
  keys, values = x.k[0, mine, :], x.v[0, mine, :]

  def visit(is_whole: bool, step: Array, summed: tuple[Array, Array]) -> tuple[Array, Array]:
    place, member = jax.lax.div(step, members), jax.lax.rem(step, members)
    pair = _Pair(inner(x.entries[place]), block, is_whole)
    at = _at(pair.queries, blocks.queries)
    queries, d_out = x.q[0, member, at, :], pulled.d_out[0, member, at, :]
    shares = jnp.exp2(_product(keys, queries.T) * bits - (pulled.lse[0, member, at] * _LOG2_E)[None, :])
    shares = _hide(shares, 0.0, x, pair, blocks, window, keys_first=True)
    d_values = summed[1] + _product(shares.astype(d_out.dtype), d_out)
    d_scores = shares * (_product(values, d_out.T) - pulled.delta[0, member, at][None, :])
    return summed[0] + _product(d_scores.astype(queries.dtype), queries), d_values

  zeros = jnp.zeros(keys.shape, jnp.float32)
  summed_k, summed_v = _each(x, block, visit, (zeros, zeros), times=members)
  d_k[0], d_v[0] = (summed_k * scale).astype(d_k.dtype), summed_v.astype(d_v.dtype)


def _each(x: Inputs, block: Array, visit: Callable[..., Any], state: Any, times: int = 1) -> Any:
  """Folds `visit(is_whole, step, state)` over the entries of an outer block, each `times` times."""
  start, middle, stop = (bound * times for bound in (x.starts[block], x.middles[block], x.starts[block + 1]))
  state = jax.lax.fori_loop(start, middle, lambda step, state: visit(True, step, state), state)
  return jax.lax.fori_loop(middle, stop, lambda step, state: visit(False, step, state), state)


def _hide(
  numbers: Array,
  hidden: float,
  x: Inputs,
  pair: _Pair,
  blocks: Blocks,
  window: int | None,
  *,
  keys_first: bool = False,
) -> Array:
  """Numbers of a pair, [queries keys] or the other way round, with `hidden` where the query does not see the key."""
  if pair.is_whole:
    return numbers
  along = (lambda x: x[None, :]) if keys_first else (lambda x: x[:, None])
  across = (lambda x: x[:, None]) if keys_first else (lambda x: x[None, :])
  at, key_at = _at(pair.queries, blocks.queries), _at(pair.keys, blocks.keys)
  query = along(x.query_starts[pair.queries] + jnp.arange(blocks.queries))
  key = across(pair.keys * blocks.keys + jnp.arange(blocks.keys))
  visible = (key <= query) & (query < across(x.end[key_at]))
  if window is not None and x.query_positions is not None and x.positions is not None:
    visible &= along(x.query_positions[at]) - across(x.positions[key_at]) < window
  return jnp.where(visible, numbers, hidden)


def _at(block: Array, size: int) -> Any:
  return pl.ds(block * size, size)


def _product(x: Array, y: Array) -> Array:
  return jnp.dot(x, y, preferred_element_type=jnp.float32)
