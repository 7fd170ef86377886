"""The moments head: from hidden states to the moments of the responses, without ever holding S × V logits.

The vocabulary projection is the largest activation of preference training. Here only scored tokens are
projected, `chunk` at a time; each chunk is reduced at once to one log-probability per token, and recomputed
in the backward pass. The rest, from log-probabilities to moments, is ordinary differentiable code.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amopo_jax.types import PackedRows


class MomentSums(NamedTuple):
  """Moments of `N` slots, flat: see `amopo_jax.types.ResponseMoments` for what the fields mean."""

  length: Float[Array, " N"]
  sum_logp: Float[Array, " N"]
  sum_p: Float[Array, " N"]
  sum_p2: Float[Array, " N"]


class _Scored(NamedTuple):
  """The scored tokens of each shard, brought to the front; the places behind `count` are void.

  Attributes:
    source: which of the shard's R/G * S tokens holds the predicting hidden state.
    target: vocabulary index to be predicted.
    slot: response, or the number of slots where void.
    count: scored tokens of each shard.
  """

  source: Int[Array, "G T"]
  target: Int[Array, "G T"]
  slot: Int[Array, "G T"]
  count: Int[Array, " G"]


def moments_head(
  hidden: Float[Array, "R S D"],
  weight: Float[Array, "V D"],
  rows: PackedRows,
  num_slots: int,
  *,
  chunk: int,
  shards: int = 1,
) -> MomentSums:
  """Sums over each response's tokens of 1, log p, p and p², with p = softmax(W h_parent)[token].

  With l = log p, the gradient of every sum passes through l alone: d(Σp)/dl = p, d(Σp²)/dl = 2p², and
  dl/dlogits = onehot − softmax. Memory is shards × chunk × V floats, whatever S.

  Args:
    hidden: final hidden states; the one at `rows.parent[j]` predicts token j.
    weight: output embedding W, in the type the products are to take (that of `hidden`).
    rows: which tokens are scored, and for which slot.
    num_slots: N, one more than the largest slot there may be; static.
    chunk: scored tokens per shard that are projected at a time, ≥ 1; need not divide anything.
    shards: in how many equal parts the rows lie on different devices; divides R. The parts run side by side
      and meet only in the sums.

  Returns:
    Float32 moments; 0 for a slot without tokens. Tokens of the same parent and the same shard add up their
    gradients in the type of `hidden`; the gradient of `weight` is accumulated in float32.
  """
  num_rows, row_length, width = hidden.shape
  if num_rows % shards:
    raise ValueError(f"moments_head: {num_rows} rows cannot be split into {shards} equal shards")
  size = min(chunk, num_rows // shards * row_length)
  scored = _gather_scored(rows, num_slots, size, shards)
  logp = _logps(hidden.reshape(shards, -1, width), weight.astype(hidden.dtype), scored, size)
  p = jnp.exp(logp)
  terms = jnp.stack([jnp.ones_like(logp), logp, p, jnp.square(p)], axis=-1)
  sums = jnp.zeros((num_slots, 4), jnp.float32).at[scored.slot].add(terms, mode="drop")
  return MomentSums(*jnp.moveaxis(sums, -1, 0))


def _gather_scored(rows: PackedRows, num_slots: int, chunk: int, shards: int) -> _Scored:
  num_rows, row_length = rows.slot.shape
  per_shard = num_rows // shards * row_length
  row_start = jnp.arange(num_rows // shards, dtype=rows.parent.dtype) * row_length
  source = rows.parent.reshape(shards, -1, row_length) + row_start[None, :, None]
  slot = rows.slot.reshape(shards, per_shard)
  order = jnp.argsort(slot < 0, axis=1, stable=True)
  pick = lambda x: jnp.take_along_axis(x.reshape(shards, per_shard), order, axis=1)
  slot = jnp.where(pick(slot) < 0, num_slots, pick(slot))
  # Whole chunks, since a dynamic slice that overruns the end is moved back in silence.
  pad = ((0, 0), (0, -per_shard % chunk))
  return _Scored(
    source=jnp.pad(pick(source), pad),
    target=jnp.pad(pick(rows.tokens), pad),
    slot=jnp.pad(slot, pad, constant_values=num_slots),
    count=jnp.sum(slot < num_slots, axis=1),
  )


def _primal(
  hidden: Float[Array, "G tokens D"], weight: Float[Array, "V D"], scored: _Scored, chunk: int
) -> Float[Array, "G T"]:
  """Log-probability of each scored token; where void, anything finite, for the slot of those does not exist."""
  return _forward(hidden, weight, scored, chunk)[0]


def _forward(hidden: Array, weight: Array, scored: _Scored, chunk: int) -> tuple[Array, tuple[Any, ...]]:
  def project(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
    logits, is_target, _ = _project(hidden, weight, scored, i, chunk)
    lse = jax.nn.logsumexp(logits, axis=-1)
    logp = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1) - lse
    put = lambda into, x: jax.lax.dynamic_update_slice_in_dim(into, x, i * chunk, axis=1)
    return put(found[0], logp), put(found[1], lse)

  zeros = jnp.zeros(scored.slot.shape, jnp.float32)
  logp, lse = jax.lax.fori_loop(0, _num_chunks(scored, chunk), project, (zeros, zeros))
  return logp, (hidden, weight, scored, lse)


def _backward(chunk: int, kept: tuple[Any, ...], d_logp: Array) -> tuple[Any, ...]:
  hidden, weight, scored, lse = kept
  # Mapped over the shards, not indexed by them: else the compiler sums d_hidden over all devices in each turn.
  add_at = jax.vmap(lambda into, at, x: into.at[at].add(x))

  def pull_back(i: Array, grads: tuple[Array, Array]) -> tuple[Array, Array]:
    d_hidden, d_weight = grads
    logits, is_target, states = _project(hidden, weight, scored, i, chunk)
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk, axis=1)
    softmax = jnp.exp(logits - cut(lse)[..., None])
    d_logits = (cut(d_logp)[..., None] * (is_target.astype(jnp.float32) - softmax)).astype(hidden.dtype)
    d_states = jnp.einsum("gcv,vd->gcd", d_logits, weight)
    d_hidden = add_at(d_hidden, cut(scored.source), d_states)
    return d_hidden, d_weight + _product("gcv,gcd->gvd", d_logits, states)

  # One gradient of the weight per shard, summed once at the end: no communication inside the loop.
  zeros = jnp.zeros_like(hidden), jnp.zeros((hidden.shape[0], *weight.shape), jnp.float32)
  d_hidden, d_weight = jax.lax.fori_loop(0, _num_chunks(scored, chunk), pull_back, zeros)
  return d_hidden, jnp.sum(d_weight, axis=0).astype(weight.dtype), None


_logps = jax.custom_vjp(_primal, nondiff_argnums=(3,))
_logps.defvjp(_forward, _backward)


def _project(
  hidden: Array, weight: Array, scored: _Scored, i: Array, chunk: int
) -> tuple[Float[Array, "G chunk V"], Array, Float[Array, "G chunk D"]]:
  """Float32 logits of chunk `i`, where each token's target lies in them, and the states they come from."""
  cut = lambda x: jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk, axis=1)
  states = jnp.take_along_axis(hidden, cut(scored.source)[..., None], axis=1)
  # Compared instead of indexed: fuses with the reductions, and stays local where the vocabulary is sharded.
  vocabulary = jnp.arange(weight.shape[0], dtype=scored.target.dtype)
  is_target = cut(scored.target)[..., None] == vocabulary[None, None, :]
  return _product("gcd,vd->gcv", states, weight), is_target, states


def _num_chunks(scored: _Scored, chunk: int) -> Int[Array, ""]:
  return jnp.max(-(-scored.count // chunk))


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
