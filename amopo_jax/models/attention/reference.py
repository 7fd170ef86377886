"""Attention over the prompt trie, the reference for every backend: plain XLA, chunked over queries.

Softmax attention whose mask is the trie's ancestry, with a hand-written backward pass in the manner of
FlashAttention-2 (arXiv 2307.08691): forward keeps the output and the logsumexp of each query, backward
recomputes the scores of one chunk of queries at a time. So memory grows with chunk × S, not S × S, and all
matrix products, those of the backward pass too, take operands of the type of `q`.

Causality halves the work: a chunk reads a static prefix of the keys. Chunks are dealt into at most
`_PREFIXES` spans that share one prefix and one loop, so that neither compile time nor memory grows with their
number; with n spans the share of S × S that is computed is (1 + 1/n) / 2.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

ATTENTION_NAME = "attention"
"""Checkpoint name of what the backward pass needs of the forward pass besides q, k and v."""

_PREFIXES = 8
"""Most prefixes of the keys, that is most loops in the program; 8 compute 0.56 of S × S."""

_HIDDEN = float(jnp.finfo(jnp.float32).min)


class Reach(NamedTuple):
  """Query i sees key j if `j <= i < end[j]`, and with a window if `positions[i] - positions[j] < window`.

  Attributes:
    end, positions: of the keys, all tokens of a row.
    offset: number in the row of the first query; None: the queries are all tokens too.
  """

  end: Int[Array, "R S"]
  positions: Int[Array, "R S"] | None
  offset: Int[Array, ""] | None = None

  def query_positions(self, count: int) -> Int[Array, "R Q"] | None:
    """Positions of `count` queries, behind the end of the row those of its last token; None without a window."""
    if self.positions is None or self.offset is None:
      return self.positions
    places = self.offset + jnp.arange(count)
    return self.positions[:, jnp.minimum(places, self.positions.shape[1] - 1)]


class _Inputs(NamedTuple):
  q: Float[Array, "R Q H Dh"]
  k: Float[Array, "R S G Dh"]
  v: Float[Array, "R S G Dh"]
  reach: Reach


class _Span(NamedTuple):
  """`count` chunks of `size` queries from `start` on, all of which read the keys before `end`."""

  start: int
  size: int
  count: int
  end: int


def attention(
  q: Float[Array, "R Q H Dh"],
  k: Float[Array, "R S G Dh"],
  v: Float[Array, "R S G Dh"],
  subtree_end: Int[Array, "R S"],
  *,
  chunk: int,
  positions: Int[Array, "R S"] | None = None,
  window: int | None = None,
  offset: Int[Array, ""] | None = None,
) -> Float[Array, "R Q H Dh"]:
  """Each token attends to its ancestors in the trie and to itself.

      o_i = Σ_j softmax_j(q_i · k_j / √Dh) v_j   over the j with j ≤ i < subtree_end[j]

  Padding (`subtree_end = 0`) attends to itself alone: finite, and without influence on anything.

  Args:
    q: queries, of all tokens or of some; head h reads key head h // (H / G).
    k: keys.
    v: values.
    subtree_end: one past each token's last descendant, an index into the row.
    chunk: queries at a time, ≥ 1; need not divide S. Memory per row is H × chunk × S floats.
    positions: depth of each token; needed with `window` only.
    window: how many last positions a query sees, itself included; None: all.
    offset: the queries are those of the Q tokens from here on, which costs Q × S; None: Q = S, of all tokens.

  Returns:
    The heads' outputs in the type of `q`; the softmax is computed in float32.
  """
  if window is not None and positions is None:
    raise ValueError("attention: a window counts positions; pass positions")
  return _attention(q, k, v, make_reach(subtree_end, positions, window, offset), chunk, window)


def make_reach(
  subtree_end: Int[Array, "R S"],
  positions: Int[Array, "R S"] | None,
  window: int | None,
  offset: Int[Array, ""] | None,
) -> Reach:
  """What is seen, by the arguments of `attention`: every token sees itself."""
  itself = jnp.arange(1, subtree_end.shape[1] + 1, dtype=subtree_end.dtype)[None, :]
  return Reach(jnp.maximum(subtree_end, itself), positions if window is not None else None, offset)


def _primal(q: Array, k: Array, v: Array, reach: Reach, chunk: int, window: int | None) -> Array:
  return _forward(q, k, v, reach, chunk, window)[0]


def _forward(
  q: Array, k: Array, v: Array, reach: Reach, chunk: int, window: int | None
) -> tuple[Array, tuple[_Inputs, Array, Array]]:
  rows, length, heads, _ = q.shape
  groups = k.shape[2]

  def attend(inputs: _Inputs, start: Array, span: _Span, done: tuple[Array, Array]) -> tuple[Array, Array]:
    scores = _scores(inputs, start, span, window)
    top = jnp.max(scores, axis=-1)
    shares = jnp.exp(scores - top[..., None])
    total = jnp.sum(shares, axis=-1)
    summed = _product("rgqmk,rkgd->rgqmd", shares.astype(inputs.v.dtype), inputs.v[:, : span.end])
    output = _ungroup(summed / total[..., None]).astype(inputs.q.dtype)
    return _put(done[0], output, start, axis=1), _put(done[1], top + jnp.log(total), start, axis=2)

  inputs = _Inputs(q, k, v, reach)
  zeros = jnp.zeros_like(q), jnp.zeros((rows, groups, length, heads // groups), jnp.float32)
  output, lse = _each_chunk(attend, inputs, chunk, zeros)
  # The names go to what is kept, or a remat policy that asks for them would not find it.
  output, lse = checkpoint_name(output, ATTENTION_NAME), checkpoint_name(lse, ATTENTION_NAME)
  return output, (inputs, output, lse)


def _backward(
  chunk: int, window: int | None, kept: tuple[_Inputs, Array, Array], d_output: Array
) -> tuple[Array, Array, Array, None]:
  inputs, output, lse = kept
  groups, scale = inputs.k.shape[2], inputs.k.shape[3] ** -0.5
  # In the softmax's gradient p_j (dp_j − Σ_i p_i dp_i) the sum is Σ output × d_output, known beforehand.
  delta = jnp.sum(output.astype(jnp.float32) * d_output.astype(jnp.float32), axis=-1, keepdims=True)
  delta = _group(delta, groups)[..., 0].transpose(0, 2, 1, 3)

  def pull_back(inputs: _Inputs, start: Array, span: _Span, done: tuple[Array, ...]) -> tuple[Array, ...]:
    mine = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, start, span.size, axis)
    q, d_out = _group(mine(inputs.q, 1), groups), _group(mine(d_output, 1), groups)
    shares = jnp.exp(_scores(inputs, start, span, window) - mine(lse, 2)[..., None])
    d_shares = _product("rqgmd,rkgd->rgqmk", d_out, inputs.v[:, : span.end])
    d_scores = (shares * (d_shares - mine(delta, 2)[..., None]) * scale).astype(q.dtype)
    d_q = _product("rgqmk,rkgd->rgqmd", d_scores, inputs.k[:, : span.end])
    d_k = _product("rgqmk,rqgmd->rkgd", d_scores, q)
    d_v = _product("rgqmk,rqgmd->rkgd", shares.astype(q.dtype), d_out)
    return (
      _put(done[0], _ungroup(d_q).astype(q.dtype), start, axis=1),
      done[1].at[:, : span.end].add(d_k),
      done[2].at[:, : span.end].add(d_v),
    )

  zeros = jnp.zeros_like(inputs.q), *(jnp.zeros(x.shape, jnp.float32) for x in (inputs.k, inputs.v))
  d_q, d_k, d_v = _each_chunk(pull_back, inputs, chunk, zeros)
  return d_q, d_k.astype(inputs.k.dtype), d_v.astype(inputs.v.dtype), None


_attention = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_attention.defvjp(_forward, _backward)


def _each_chunk(step: Callable[..., Any], inputs: _Inputs, chunk: int, state: Any) -> Any:
  """Folds `step(inputs, start, span, state)` over the chunks.

  The barrier lets a span begin when the last one is done. Without it the compiler may hold the scores of all
  spans at once, or keep those of the forward pass for the backward pass.
  """
  queries, keys = inputs.q.shape[1], inputs.k.shape[1]
  # Where the first query's number is data, no prefix of the keys is known to be enough.
  for span in _spans(queries, chunk) if inputs.reach.offset is None else _whole_spans(queries, chunk, keys):
    inputs, state = jax.lax.optimization_barrier((inputs, state))
    one = lambda i, state, inputs=inputs, span=span: step(inputs, span.start + i * span.size, span, state)
    state = jax.lax.fori_loop(0, span.count, one, state)
  return state


def _spans(length: int, chunk: int) -> Iterator[_Span]:
  whole = length // chunk
  count = -(-whole // _PREFIXES)
  for first in range(0, whole, max(count, 1)):
    last = min(first + count, whole)
    yield _Span(first * chunk, chunk, last - first, last * chunk)
  if length % chunk:
    yield _Span(whole * chunk, length % chunk, 1, length)


def _whole_spans(queries: int, chunk: int, keys: int) -> Iterator[_Span]:
  whole, rest = divmod(queries, chunk)
  if whole:
    yield _Span(0, chunk, whole, keys)
  if rest:
    yield _Span(whole * chunk, rest, 1, keys)


def _scores(inputs: _Inputs, start: Array, span: _Span, window: int | None) -> Float[Array, "R G queries M keys"]:
  """Scaled products of a chunk's queries with the span's keys, hidden ones at the lowest float."""
  q = jax.lax.dynamic_slice_in_dim(inputs.q, start, span.size, axis=1)
  k = inputs.k[:, : span.end]
  scores = _product("rqgmd,rkgd->rgqmk", _group(q, k.shape[2]), k) * k.shape[3] ** -0.5
  visible = _visible(inputs.reach, start, span, window)
  return jnp.where(visible[:, None, :, None, :], scores, _HIDDEN)


def _visible(reach: Reach, start: Array, span: _Span, window: int | None) -> Bool[Array, "R queries keys"]:
  start = start if reach.offset is None else start + reach.offset
  query = (start + jnp.arange(span.size))[None, :, None]
  key = jnp.arange(span.end)[None, None, :]
  visible = (key <= query) & (query < reach.end[:, None, : span.end])
  if window is None or reach.positions is None:
    return visible
  positions = jax.lax.dynamic_slice_in_dim(reach.positions, start, span.size, axis=1)
  return visible & (positions[:, :, None] - reach.positions[:, None, : span.end] < window)


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _put(into: Array, x: Array, start: Array, axis: int) -> Array:
  return jax.lax.dynamic_update_slice_in_dim(into, x, start, axis)


def _group(x: Array, groups: int) -> Float[Array, "R S G M Dh"]:
  """Heads by the key head they read; a view, since Hugging Face orders heads that way."""
  rows, length, heads, size = x.shape
  return x.reshape(rows, length, groups, heads // groups, size)


def _ungroup(x: Float[Array, "R G S M Dh"]) -> Float[Array, "R S H Dh"]:
  rows, groups, length, members, size = x.shape
  return x.transpose(0, 2, 1, 3, 4).reshape(rows, length, groups * members, size)
