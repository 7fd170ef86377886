"""Attention over short rows in plain XLA, all rows at once: what `xla_blocks` does where a row is a single block.

There is nothing to skip then, and a loop over rows would cost more than what it computes. The layout is that of
`xla_blocks`: tokens last, scores as [keys, queries], a softmax over the first axis (docs/decisions/0012).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from amopo_jax.models.attention.fused import HIDDEN, Operands, Pull

_MOST_SCORES = 1 << 20
"""Of all rows and heads together: where they have more than 4 MiB, loops whose scores stay in a core's cache win."""


class _Rows(NamedTuple):
  """The operands row by row, queries times `scale` and their members side by side for each key head."""

  q: Float[Array, "R G Dh queries"]
  k: Float[Array, "R G Dh keys"]
  v: Float[Array, "R G Dh keys"]


def are_few(x: Operands) -> bool:
  """Whether the scores of all rows, which are one block each, may be there at once."""
  groups, members, tokens, _ = x.q.shape
  return x.reach.offset is None and groups * members * tokens * x.queries <= _MOST_SCORES


def forward(x: Operands) -> tuple[Array, Array]:
  """Output and logsumexp, as a kernel's."""
  rows = _rows(x)
  scores = _scores(x, rows)
  top = jnp.max(scores, axis=2)
  shares = jnp.exp(scores - top[:, :, None])
  total = jnp.sum(shares, axis=2)
  output = product("rgdk,rgkq->rgdq", rows.v, shares.astype(x.v.dtype)) / total[:, :, None]
  return _to_queries(output, x).astype(x.q.dtype), _to_queries((top + jnp.log(total))[:, :, None], x)[..., 0]


def backward(x: Operands, pull: Pull) -> tuple[Array, Array, Array]:
  """Gradients of q, k and v, as a kernel's."""
  rows = _rows(x)
  d_out, lse, delta = (_from_queries(y, x) for y in (pull.d_out, pull.lse[..., None], pull.delta[..., None]))
  shares = jnp.exp(_scores(x, rows) - lse)
  d_scores = (shares * (product("rgdk,rgdq->rgkq", rows.v, d_out) - delta)).astype(x.q.dtype)
  d_q = product("rgdk,rgkq->rgdq", rows.k, d_scores) * x.scale
  d_k = product("rgdq,rgkq->rgdk", rows.q, d_scores)
  d_v = product("rgdq,rgkq->rgdk", d_out, shares.astype(x.q.dtype))
  to_keys = lambda y, like: y.transpose(1, 0, 3, 2).reshape(like.shape).astype(like.dtype)
  return _to_queries(d_q, x).astype(x.q.dtype), to_keys(d_k, x.k), to_keys(d_v, x.v)


def product(spec: str, x: Array, y: Array) -> Array:
  """In float32: where a CPU multiplies bfloat16 itself, XLA 0.10 compiles some products of it that it cannot run."""
  return jnp.einsum(spec, x.astype(jnp.float32), y.astype(jnp.float32))


def _rows(x: Operands) -> _Rows:
  groups, _, _, size = x.q.shape
  keys, values = (y.reshape(groups, -1, x.queries, size).transpose(1, 0, 3, 2) for y in (x.k, x.v))
  return _Rows((_from_queries(x.q, x) * x.scale).astype(x.q.dtype), keys, values)


def _scores(x: Operands, rows: _Rows) -> Float32[Array, "R G keys queries"]:
  visible = jnp.tile(_visible(x), (1, 1, x.q.shape[1]))
  return jnp.where(visible[:, None], product("rgdk,rgdq->rgkq", rows.k, rows.q), HIDDEN)


def _visible(x: Operands) -> Bool[Array, "R keys queries"]:
  place = jnp.arange(x.queries)
  visible = (place[:, None] <= place[None, :])[None] & (place[None, None, :] < x.reach.end[:, :, None])
  if x.window is None or x.reach.positions is None:
    return visible
  positions = x.reach.positions
  return visible & (positions[:, None, :] - positions[:, :, None] < x.window)


def _from_queries(y: Float[Array, "G M Q Dh"], x: Operands) -> Float[Array, "R G Dh queries"]:
  """Queries of all members side by side, from those of all rows end to end."""
  groups, members, _, size = y.shape
  apart = y.reshape(groups, members, -1, x.queries, size).transpose(2, 0, 4, 1, 3)
  return apart.reshape(-1, groups, size, members * x.queries)


def _to_queries(y: Float[Array, "R G Dh queries"], x: Operands) -> Float[Array, "G M Q Dh"]:
  """Back."""
  rows, groups, size, _ = y.shape
  apart = y.reshape(rows, groups, size, -1, x.queries).transpose(1, 3, 0, 4, 2)
  return apart.reshape(groups, -1, rows * x.queries, size)
