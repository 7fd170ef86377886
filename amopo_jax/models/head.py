"""The moments head: from hidden states to the moments of the responses, without ever holding S × V logits.

The vocabulary projection is the largest activation of preference training. Here only scored tokens are projected, and
reduced at once to one log-probability per token (`logps.py`). The rest, from log-probabilities to moments, is ordinary
differentiable code.
"""

import logging
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.logps import Room, Scored, Tiling, room_shape, scored_logps
from amopo_jax.types import PackedRows

_log = logging.getLogger(__name__)

BLOCK_LOGITS = 1 << 22
"""Logits of one block on one device: 16 MiB of float32 stay in a last-level cache."""

GPU_BLOCK_LOGITS = 1 << 28
"""Likewise of a GPU, whose caches hold no block in any case: 1 GiB, so that few large products keep it busy."""

_LEAST_WORDS = 512
"""Words of a block, at least; smaller matrix products are slow ones."""


class MomentSums(NamedTuple):
  """Moments of `N` slots, flat: see `amopo_jax.types.ResponseMoments` for what the fields mean."""

  length: Float[Array, " N"]
  sum_logp: Float[Array, " N"]
  sum_p: Float[Array, " N"]
  sum_p2: Float[Array, " N"]


def moments_head(
  hidden: Float[Array, "R S D"],
  weight: Float[Array, "V D"],
  rows: PackedRows,
  num_slots: int,
  *,
  chunk: int,
  keep: float = 0.0,
  shards: int = 1,
  sharers: int = 1,
  vocab_shards: int = 1,
  block_logits: int = BLOCK_LOGITS,
  room: Room | None = None,
  constrain: Constrain = identity,
) -> MomentSums:
  """Sums over each response's tokens of 1, log p, p and p², with p = softmax(W h_parent)[token].

  With l = log p, the gradient of every sum passes through l alone: d(Σp)/dl = p, d(Σp²)/dl = 2p², and
  dl/dlogits = onehot − softmax. Memory is a block of logits and `keep`, whatever S and V.

  Args:
    hidden: final hidden states; the one at `rows.parent[j]` predicts token j.
    weight: output embedding W, in the type the products are to take (that of `hidden`).
    rows: which tokens are scored, and for which slot.
    num_slots: N, one more than the largest slot there may be; static.
    chunk: scored tokens that a device projects at a time, ≥ 1; need not divide anything. The last ones come in pieces.
    keep: GiB of logits per device that may be kept for the backward pass instead of being recomputed there.
    shards: in how many equal parts the rows lie on different devices; divides R. The parts run side by side
      and meet only in the sums.
    sharers: devices among which the scored tokens of a shard are dealt; each gets the hidden states of all its tokens.
    vocab_shards: in how many equal parts the vocabulary lies on different devices; divides V.
    block_logits: most logits of one block; a block has `_LEAST_WORDS` words nevertheless.
    room: of `make_room`, for rows of this shape; left alone where it has another size. None: kept logits are a
      temporary of the step.
    constrain: hook for layouts, kind "head_shards": by shard, then by sharer.

  Returns:
    Float32 moments; 0 for a slot without tokens.
  """
  num_rows, row_length, _ = hidden.shape
  if num_rows % shards:
    raise ValueError(f"moments_head: {num_rows} rows cannot be split into {shards} equal shards")
  if weight.shape[0] % vocab_shards:
    raise ValueError(f"moments_head: {weight.shape[0]} words cannot be split into {vocab_shards} equal shards")
  num_tokens = -(-(num_rows // shards * row_length) // sharers)
  tiling = _tile(num_tokens, weight.shape[0], chunk, keep, vocab_shards, block_logits)
  if keep and not tiling.kept:
    _log.warning("head: head_keep=%g GiB keeps nothing: a chunk of %d tokens needs more", keep, tiling.chunk)
  scored = _gather_scored(rows, num_slots, tiling.chunk, shards, sharers, constrain)
  if room is not None and room.shape != room_shape(tiling, weight.shape[0], shards * sharers):
    room = None
  states = _copy(hidden, shards, sharers, constrain)
  logp = scored_logps(states, weight.astype(hidden.dtype), scored, tiling, room)
  p = jnp.exp(logp)
  terms = jnp.stack([jnp.ones_like(logp), logp, p, jnp.square(p)], axis=-1)
  sums = jnp.zeros((num_slots, 4), jnp.float32).at[scored.slot].add(terms, mode="drop")
  return MomentSums(*jnp.moveaxis(sums, -1, 0))


def make_room(rows: tuple[int, int], num_words: int, *, chunk: int, keep: float) -> Room | None:
  """Memory for the kept logits of a run on one device, to be used again by every step.

  Where a program's temporaries come from the system anew at every call, as on a CPU, their clean pages cost about as
  much as the logits themselves.

  Args:
    rows: R and S of a micro-batch; zeros where nothing is trained.
    num_words: V.
    chunk, keep: as of `moments_head`.

  Returns:
    None if nothing is kept.
  """
  tiling = _tile(max(rows[0] * rows[1], 1), num_words, chunk, keep, vocab_shards=1)
  return jax.new_ref(jnp.zeros(room_shape(tiling, num_words, 1), jnp.float32)) if tiling.kept and all(rows) else None


def _tile(
  num_tokens: int, num_words: int, chunk: int, keep: float, vocab_shards: int, block_logits: int = BLOCK_LOGITS
) -> Tiling:
  """How the work of `num_tokens` tokens per device is cut."""
  size = min(chunk, num_tokens)
  kept = min(kept_chunks(keep, size, num_words // vocab_shards), -(-num_tokens // size))
  return Tiling(size, max(block_logits // size, _LEAST_WORDS), kept, vocab_shards)


def kept_chunks(keep: float, chunk: int, words: int) -> int:
  """How many chunks of float32 logits fit into a budget.

  Args:
    keep: GiB.
    chunk: tokens of a chunk.
    words: entries of the vocabulary that a device holds.
  """
  return int(keep * 2**30) // (chunk * words * 4)


def _copy(hidden: Array, shards: int, sharers: int, constrain: Constrain) -> Float[Array, "G tokens D"]:
  """The hidden states of each shard for each of its sharers."""
  num_rows, row_length, width = hidden.shape
  one = hidden.reshape(shards, 1, num_rows // shards, row_length, width)
  each = jnp.broadcast_to(one, (shards, sharers, *one.shape[2:]))
  return constrain(each, "head_shards").reshape(shards * sharers, -1, width)


def _deal(x: Array, sharers: int, constrain: Constrain) -> Int[Array, "G N"]:
  """Tokens [shards N] dealt one by one, so that the sharers get as many, but for one."""
  dealt = x.reshape(x.shape[0], -1, sharers).swapaxes(1, 2)
  return constrain(dealt, "head_shards").reshape(x.shape[0] * sharers, -1)


def _gather_scored(
  rows: PackedRows, num_slots: int, chunk: int, shards: int, sharers: int, constrain: Constrain
) -> Scored:
  num_rows, row_length = rows.slot.shape
  per_shard = num_rows // shards * row_length
  row_start = jnp.arange(num_rows // shards, dtype=rows.parent.dtype) * row_length
  source = rows.parent.reshape(shards, -1, row_length) + row_start[None, :, None]
  slot = rows.slot.reshape(shards, per_shard)
  is_scored = slot >= 0
  order, count = _marked_first(is_scored), jnp.sum(is_scored, axis=1, keepdims=True)
  pick = lambda x: jnp.take_along_axis(x.reshape(shards, per_shard), order, axis=1)
  slot = jnp.where(jnp.arange(per_shard)[None, :] < count, pick(slot), num_slots)  # the last place comes again
  # Whole chunks, since a dynamic slice that overruns the end is moved back in silence.
  pad = ((0, 0), (0, -per_shard % (chunk * sharers)))
  deal = lambda x: _deal(x, sharers, constrain)
  slot = deal(jnp.pad(slot, pad, constant_values=num_slots))
  return Scored(
    source=deal(jnp.pad(pick(source), pad)),
    target=deal(jnp.pad(pick(rows.tokens), pad)),
    slot=slot,
    count=jnp.sum(slot < num_slots, axis=1),
  )


def _marked_first(marked: Bool[Array, "G N"]) -> Int[Array, "G N"]:
  """The places of the marked entries of each shard, in order; behind them the last place, again and again.

  By bisection, not by sorting: the TPU's compiler takes minutes for a sort of thousands of entries.
  """
  size = marked.shape[1]
  find = partial(jnp.searchsorted, v=jnp.arange(1, size + 1), method="scan")
  return jnp.minimum(jax.vmap(find)(jnp.cumsum(marked, axis=1)), size - 1)
