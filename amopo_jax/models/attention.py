"""Attention over the prompt trie, the reference for every backend: plain XLA, chunked over queries.

Softmax attention whose mask is the trie's ancestry, with a hand-written backward pass in the manner of
FlashAttention-2 (arXiv 2307.08691): forward keeps the output and the logsumexp of each query, backward
recomputes the scores of one chunk of queries at a time. So memory grows with chunk × S, not S × S, and all
matrix products, those of the backward pass too, take operands of the type of `q`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

ATTENTION_NAME = "attention"
"""Checkpoint name of what the backward pass needs of the forward pass besides q, k and v."""

_HIDDEN = float(jnp.finfo(jnp.float32).min)


class Reach(NamedTuple):
  """Query i sees key j if `j <= i < end[j]`, and with a window if `positions[i] - positions[j] < window`."""

  end: Int[Array, "R S"]
  positions: Int[Array, "R S"] | None


class _Kept(NamedTuple):
  q: Array
  k: Array
  v: Array
  reach: Reach
  output: Array
  lse: Array


def attention(
  q: Float[Array, "R S H Dh"],
  k: Float[Array, "R S G Dh"],
  v: Float[Array, "R S G Dh"],
  subtree_end: Int[Array, "R S"],
  *,
  chunk: int,
  positions: Int[Array, "R S"] | None = None,
  window: int | None = None,
) -> Float[Array, "R S H Dh"]:
  """Each token attends to its ancestors in the trie and to itself.

      o_i = Σ_j softmax_j(q_i · k_j / √Dh) v_j   over the j with j ≤ i < subtree_end[j]

  Queries are taken in chunks; keys after a chunk's end are never touched, which halves the work. Padding
  (`subtree_end = 0`) attends to itself alone: finite, and without influence on anything.

  Args:
    q: queries; head h reads key head h // (H / G).
    k: keys.
    v: values.
    subtree_end: one past each token's last descendant, an index into the row.
    chunk: queries at a time, ≥ 1; need not divide S. Memory per row is H × chunk × S floats.
    positions: depth of each token; needed with `window` only.
    window: how many last positions a query sees, itself included; None: all.

  Returns:
    The heads' outputs in the type of `q`; the softmax is computed in float32.
  """
  if window is not None and positions is None:
    raise ValueError("attention: a window counts positions; pass positions")
  itself = jnp.arange(1, subtree_end.shape[1] + 1, dtype=subtree_end.dtype)[None, :]
  reach = Reach(jnp.maximum(subtree_end, itself), positions if window is not None else None)
  return _attention(q, k, v, reach, chunk, window)


def _primal(q: Array, k: Array, v: Array, reach: Reach, chunk: int, window: int | None) -> Array:
  return _forward(q, k, v, reach, chunk, window)[0]


def _forward(
  q: Array, k: Array, v: Array, reach: Reach, chunk: int, window: int | None
) -> tuple[Array, _Kept]:
  outputs, lses = [], []
  for start, end in _chunks(q.shape[1], chunk):
    scores = _scores(q, k, reach, start, end, window)
    top = jnp.max(scores, axis=-1, keepdims=True)
    shares = jnp.exp(scores - top)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    summed = _product("rgqmk,rkgd->rgqmd", shares.astype(v.dtype), v[:, :end])
    outputs.append(_ungroup(summed / total).astype(q.dtype))
    lses.append(top + jnp.log(total))
  output = checkpoint_name(jnp.concatenate(outputs, axis=1), ATTENTION_NAME)
  lse = checkpoint_name(jnp.concatenate(lses, axis=2), ATTENTION_NAME)
  return output, _Kept(q, k, v, reach, output, lse)


def _backward(chunk: int, window: int | None, kept: _Kept, d_output: Array) -> tuple[Any, ...]:
  q, k, v, reach, output, lse = kept
  groups, scale = k.shape[2], k.shape[3] ** -0.5
  d_qs = []
  d_k, d_v = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
  for start, end in _chunks(q.shape[1], chunk):
    mine, seen = slice(start, end), slice(0, end)
    d_out = _group(d_output[:, mine], groups)
    shares = jnp.exp(_scores(q, k, reach, start, end, window) - lse[:, :, mine])
    pull = d_out.astype(jnp.float32) * _group(output[:, mine], groups).astype(jnp.float32)
    d_shares = _product("rqgmd,rkgd->rgqmk", d_out, v[:, seen])
    d_scores = shares * (d_shares - jnp.sum(pull, axis=-1).transpose(0, 2, 1, 3)[..., None]) * scale
    d_scores = d_scores.astype(q.dtype)
    d_qs.append(_ungroup(_product("rgqmk,rkgd->rgqmd", d_scores, k[:, seen])).astype(q.dtype))
    d_k = d_k.at[:, seen].add(_product("rgqmk,rqgmd->rkgd", d_scores, _group(q[:, mine], groups)))
    d_v = d_v.at[:, seen].add(_product("rgqmk,rqgmd->rkgd", shares.astype(q.dtype), d_out))
  return jnp.concatenate(d_qs, axis=1), d_k.astype(k.dtype), d_v.astype(v.dtype), None


_attention = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_attention.defvjp(_forward, _backward)


def _scores(
  q: Array, k: Array, reach: Reach, start: int, end: int, window: int | None
) -> Float[Array, "R G queries M keys"]:
  """Scaled products of the queries [start, end) with the keys [0, end), hidden ones at the lowest float."""
  queries = _group(q[:, start:end], k.shape[2])
  scores = _product("rqgmd,rkgd->rgqmk", queries, k[:, :end]) * k.shape[3] ** -0.5
  visible = _visible(reach, start, end, window)
  return jnp.where(visible[:, None, :, None, :], scores, _HIDDEN)


def _visible(reach: Reach, start: int, end: int, window: int | None) -> Bool[Array, "R queries keys"]:
  query = jnp.arange(start, end, dtype=reach.end.dtype)[None, :, None]
  key = jnp.arange(end, dtype=reach.end.dtype)[None, None, :]
  visible = (key <= query) & (query < reach.end[:, None, :end])
  if window is None or reach.positions is None:
    return visible
  distance = reach.positions[:, start:end, None] - reach.positions[:, None, :end]
  return visible & (distance < window)


def _chunks(length: int, chunk: int) -> Iterator[tuple[int, int]]:
  for start in range(0, length, chunk):
    yield start, min(start + chunk, length)


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _group(x: Array, groups: int) -> Float[Array, "R S G M Dh"]:
  """Heads by the key head they read; a view, since Hugging Face orders heads that way."""
  rows, length, heads, size = x.shape
  return x.reshape(rows, length, groups, heads // groups, size)


def _ungroup(x: Float[Array, "R G S M Dh"]) -> Float[Array, "R S H Dh"]:
  rows, groups, length, members, size = x.shape
  return x.transpose(0, 2, 1, 3, 4).reshape(rows, length, groups * members, size)
