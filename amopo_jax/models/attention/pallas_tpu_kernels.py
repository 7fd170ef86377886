"""What the TPU computes in one visit to a live pair of blocks: the bodies of the kernels of `pallas_tpu`.

A visit holds a block of keys and the same block of all query heads that read it, so the mask is made once for them.
Scores are held transposed, [keys queries]: maximum and sum of a query then run down sublanes, and what belongs to a
query (maximum, sum, logsumexp) is a row along lanes, as it lies in memory. Sums stay in fast memory from the first
visit of an outer block to its last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from amopo_jax.models.attention.block_map import inner, outer
from amopo_jax.models.attention.fused import HIDDEN


class Inputs(NamedTuple):
  """Operands of a kernel: arrays, how they are cut into blocks, or references to a block."""

  q: Any
  k: Any
  v: Any
  end: Any
  query_positions: Any
  key_positions: Any


class Pulled(NamedTuple):
  """Likewise what only the backward pass has."""

  d_out: Any
  lse: Any
  delta: Any


class _Visit(NamedTuple):
  """One entry of the list: its blocks, and whether it is the first or the last of its outer block."""

  query: Array
  key: Array
  is_first: Array
  is_last: Array


def forward_kernel(
  entries: Any, starts: Any, x: Inputs, output: Any, lse: Any, *sums: Any, scale: float, window: int | None
) -> None:
  """Running maximum, sum and output of a block of queries (FlashAttention-2, algorithm 1).

  Args:
    entries: the list by queries.
    starts: of each block of queries, the number of its first one among the keys.
    x: the blocks visited.
    output, lse: results, written at the last visit of the queries.
    sums: maximum and sum [M queries], output not yet divided [M Dh queries].
    scale: factor of the scores.
    window: how many last positions a query sees; None: all.
  """
  top, total, summed = sums
  visit = _visit(entries, query=outer, key=inner)

  @pl.when(visit.is_first)
  def _begin() -> None:
    top[...] = jnp.full(top.shape, HIDDEN, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)
    summed[...] = jnp.zeros(summed.shape, jnp.float32)

  visible, k, v = _visible(visit, starts, x, window), x.k[0], x.v[0]
  for member in range(x.q.shape[1]):
    scores = _scores(x.q[0, member], k, visible, scale)
    before = top[member : member + 1]
    now = jnp.maximum(before, jnp.max(scores, axis=0, keepdims=True))
    shares, shrink = jnp.exp(scores - now), jnp.exp(before - now)
    top[member : member + 1] = now
    total[member : member + 1] = shrink * total[member : member + 1] + jnp.sum(shares, axis=0, keepdims=True)
    summed[member] = shrink * summed[member] + _product(v, shares.astype(v.dtype), 0, 0)

  @pl.when(visit.is_last)
  def _end() -> None:
    for member in range(x.q.shape[1]):
      output[0, member] = (summed[member] / total[member : member + 1]).T.astype(output.dtype)
    lse[0] = top[...] + jnp.log(total[...])


def query_kernel(
  entries: Any, starts: Any, x: Inputs, pulled: Pulled, d_q: Any, summed: Any, *, scale: float, window: int | None
) -> None:
  """Gradient of a block of queries (algorithm 2).

  Args:
    entries: the list by queries.
    starts: as in `forward_kernel`.
    x, pulled: the blocks visited.
    d_q: result, written at the last visit of the queries.
    summed: what has been added up, [M Dh queries].
    scale, window: as in `forward_kernel`.
  """
  visit = _visit(entries, query=outer, key=inner)

  @pl.when(visit.is_first)
  def _begin() -> None:
    summed[...] = jnp.zeros(summed.shape, jnp.float32)

  visible = _visible(visit, starts, x, window)
  for member in range(x.q.shape[1]):
    _, d_scores = _shares(x, pulled, member, visible, scale)
    summed[member] += _product(x.k[0], d_scores, 0, 0)

  @pl.when(visit.is_last)
  def _end() -> None:
    for member in range(x.q.shape[1]):
      d_q[0, member] = summed[member].T.astype(d_q.dtype)


def key_kernel(
  entries: Any, starts: Any, x: Inputs, pulled: Pulled, d_k: Any, d_v: Any, *sums: Any, scale: float, window: int | None
) -> None:
  """Gradients of a block of keys and of its values, summed over the heads that read them (algorithm 2).

  Args:
    entries: the list by keys.
    starts: as in `forward_kernel`.
    x, pulled: the blocks visited.
    d_k, d_v: results, written at the last visit of the keys.
    sums: what has been added up for each, [keys Dh].
    scale, window: as in `forward_kernel`.
  """
  summed_k, summed_v = sums
  visit = _visit(entries, query=inner, key=outer)

  @pl.when(visit.is_first)
  def _begin() -> None:
    summed_k[...] = jnp.zeros(summed_k.shape, jnp.float32)
    summed_v[...] = jnp.zeros(summed_v.shape, jnp.float32)

  visible = _visible(visit, starts, x, window)
  for member in range(x.q.shape[1]):
    shares, d_scores = _shares(x, pulled, member, visible, scale)
    summed_v[...] += _product(shares, pulled.d_out[0, member], 1, 0)
    summed_k[...] += _product(d_scores, x.q[0, member], 1, 0)

  @pl.when(visit.is_last)
  def _end() -> None:
    d_k[0] = summed_k[...].astype(d_k.dtype)
    d_v[0] = summed_v[...].astype(d_v.dtype)


def _shares(x: Inputs, pulled: Pulled, member: int, visible: Array, scale: float) -> tuple[Array, Array]:
  """Shares of the keys in a query's output, and the gradient of the scores, both [keys queries] as operands."""
  q, d_out = x.q[0, member], pulled.d_out[0, member]
  lse, delta = pulled.lse[0, member : member + 1], pulled.delta[0, member : member + 1]
  shares = jnp.exp(_scores(q, x.k[0], visible, scale) - lse)
  d_scores = shares * (_product(x.v[0], d_out, 1, 1) - delta) * scale
  return shares.astype(q.dtype), d_scores.astype(q.dtype)


def _scores(q: Array, k: Array, visible: Array, scale: float) -> Array:
  return jnp.where(visible, _product(k, q, 1, 1) * scale, HIDDEN)


def _product(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
  return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _visit(entries: Any, query: Callable[[Array], Array], key: Callable[[Array], Array]) -> _Visit:
  step = pl.program_id(1)
  entry, before, after = entries[step], entries[jnp.maximum(step - 1, 0)], entries[step + 1]
  is_first = (step == 0) | (outer(before) != outer(entry))
  return _Visit(query(entry), key(entry), is_first, outer(after) != outer(entry))


def _visible(visit: _Visit, starts: Any, x: Inputs, window: int | None) -> Array:
  """Which keys are seen, [keys queries]."""
  shape = x.end.shape[1], x.q.shape[2]
  key = visit.key * shape[0] + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  query = starts[visit.query] + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  visible = (key <= query) & (query < _column(x.end[...], shape[1]))
  if window is None:
    return visible
  return visible & (x.query_positions[...] - _column(x.key_positions[...], shape[1]) < window)


def _column(row: Array, width: int) -> Array:
  """A row [1 N] stood up and repeated, [N width]."""
  return jnp.broadcast_to(row, (width, row.shape[1])).T
