"""Log-probabilities of given words, without ever holding tokens × vocabulary logits.

Two nested loops with a hand-written gradient: over chunks of tokens, as many as there are tokens to score, and over
blocks of the vocabulary, so that a block of logits stays in the cache of a CPU or in the fast memory of an
accelerator. The forward pass keeps one logsumexp per token, in the manner of an online softmax (arXiv 1805.02867).
The backward pass computes the logits once more, but for the first `kept` chunks, whose logits were kept: 6 instead of
8 operations per token, word and unit of width, for memory that does not grow with the batch.

Where T devices share the vocabulary, each has V/T words of it; what is summed over words stays apart in an axis T
until the loops are done: no communication inside them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amopo_jax.models.softmax import Softmax

_MULTIPLE = 128
"""Blocks of equal size are rounded up to this many words, a TPU's lanes."""


class Tiling(NamedTuple):
  """How the work is cut; static.

  Attributes:
    chunk: tokens at a time.
    block: words at a time; fewer if the vocabulary divides better so.
    kept: first chunks whose logits are kept for the backward pass.
    vocab_shards: T, devices that share the vocabulary; divides V.
  """

  chunk: int
  block: int
  kept: int
  vocab_shards: int


class Scored(NamedTuple):
  """The tokens to score of each of G shards, brought to the front; the places behind `count` are void.

  Attributes:
    source: which of the shard's tokens holds the predicting hidden state.
    target: vocabulary index to be predicted.
    slot: response, or the number of slots where void.
    count: scored tokens of each shard.
  """

  source: Int[Array, "G N"]
  target: Int[Array, "G N"]
  slot: Int[Array, "G N"]
  count: Int[Array, " G"]


Room = jax.Ref
"""Memory of shape `room_shape` that outlives a step, for the logits that are kept within it."""


class _Chunk(NamedTuple):
  """The states that predict the tokens of a chunk, and the tokens."""

  states: Float[Array, "G chunk D"]
  target: Int[Array, "G chunk"]


class _Block(NamedTuple):
  """Words number `j * size` on of every vocabulary shard; the last block begins earlier, and repeats some.

  Attributes:
    start: first word.
    word: index of each word in the vocabulary.
    is_fresh: False for a word of the block before.
  """

  start: Array
  word: Int[Array, "T words"]
  is_fresh: Array


def _primal(tiling: Tiling, hidden: Array, weight: Array, scored: Scored) -> Float[Array, "G N"]:
  return _forward(tiling._replace(kept=0), None, hidden, weight, scored)[0]


def _forward(
  tiling: Tiling, room: Room | None, hidden: Array, weight: Array, scored: Scored
) -> tuple[Array, tuple[Any, ...]]:
  words, size, num_blocks = _blocks_of(weight, tiling)

  def project(keeps: bool, i: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    logps, lses, kept = found
    chunk = _chunk(hidden, scored, i, tiling)

    def add(j: Array, state: tuple[Softmax, Array]) -> tuple[Softmax, Array]:
      block = _block(words, j, size)
      logits = _logits(chunk, words, block, size)
      softmax = state[0].add(logits, block.is_fresh, _is_target(block, chunk.target))
      if keeps and room is not None:
        room[i, j] = logits
      return softmax, (state[1].at[i, j].set(logits) if keeps and room is None else state[1])

    softmax, kept = jax.lax.fori_loop(
      0, num_blocks, add, (Softmax.empty((tiling.vocab_shards, *chunk.target.shape)), kept)
    )
    logp, lse = softmax.finish()
    put = lambda into, x: jax.lax.dynamic_update_slice_in_dim(into, x, i * tiling.chunk, axis=1)
    return put(logps, logp), put(lses, lse), kept

  zeros = jnp.zeros(scored.slot.shape, jnp.float32)
  shape = room_shape(tiling, weight.shape[0], hidden.shape[0]) if room is None else (0,)
  logps, lses, kept = _each_chunk(project, scored, tiling, (zeros, zeros, jnp.zeros(shape, jnp.float32)))
  return logps, (hidden, weight, scored, lses, kept)


def _backward(
  tiling: Tiling, room: Room | None, residuals: tuple[Any, ...], d_logp: Array
) -> tuple[Array, Array, None]:
  hidden, weight, scored, lses, kept = residuals
  kept = kept if room is None else room
  words, size, num_blocks = _blocks_of(weight, tiling)
  # Mapped over the shards, not indexed by them: else the compiler sums d_hidden over all devices in each turn.
  add_at = jax.vmap(lambda into, at, x: into.at[at].add(x))

  def pull_back(keeps: bool, i: Array, grads: tuple[Array, Array]) -> tuple[Array, Array]:
    d_hidden, d_words = grads
    chunk = _chunk(hidden, scored, i, tiling)
    pull, lse = (_cut(x, i, tiling)[None, None] for x in (d_logp, lses))

    def one_block(j: Array, grads: tuple[Array, Array]) -> tuple[Array, Array]:
      d_states, d_words = grads
      block = _block(words, j, size)
      logits = kept[i, j] if keeps else _logits(chunk, words, block, size)
      is_target = _is_target(block, chunk.target).astype(jnp.float32)
      d_logits = jnp.where(block.is_fresh, pull * (is_target - jnp.exp(logits - lse)), 0.0).astype(hidden.dtype)
      d_states = d_states + _product("twd,twgc->tdgc", _cut_words(words, block, size), d_logits)
      d_block = _product("twgc,gcd->gtwd", d_logits, chunk.states)
      before = jax.lax.dynamic_slice_in_dim(d_words, block.start, size, axis=2)
      return d_states, jax.lax.dynamic_update_slice_in_dim(d_words, before + d_block, block.start, axis=2)

    zeros = jnp.zeros((tiling.vocab_shards, hidden.shape[2], *chunk.target.shape), jnp.float32)
    d_states, d_words = jax.lax.fori_loop(0, num_blocks, one_block, (zeros, d_words))
    d_states = jnp.moveaxis(jnp.sum(d_states, axis=0), 0, -1).astype(hidden.dtype)
    return add_at(d_hidden, _cut(scored.source, i, tiling), d_states), d_words

  # One gradient of the weight per shard, summed once at the end: no communication inside the loops.
  zeros = jnp.zeros_like(hidden), jnp.zeros((hidden.shape[0], *words.shape), jnp.float32)
  d_hidden, d_words = _each_chunk(pull_back, scored, tiling, zeros)
  return d_hidden, jnp.sum(d_words, axis=0).reshape(weight.shape).astype(weight.dtype), None


def scored_logps(
  hidden: Float[Array, "G tokens D"],
  weight: Float[Array, "V D"],
  scored: Scored,
  tiling: Tiling,
  room: Room | None = None,
) -> Float[Array, "G N"]:
  """log softmax(W h_source)[target] of each scored token.

  Args:
    hidden: final hidden states of G shards.
    weight: output embedding W, in the type of `hidden`.
    scored: the tokens; N is a multiple of `tiling.chunk`.
    tiling: how the work is cut.
    room: where the kept logits go, of `room_shape`; None: a temporary of the step.

  Returns:
    Float32; where void, anything finite. Tokens with the same source add up their gradients in the type of `hidden`;
    the gradient of `weight` is accumulated in float32.
  """
  # Only a gradient's passes know the room: jit cannot hand a reference to what neither reads nor writes it.
  logps = jax.custom_vjp(partial(_primal, tiling))
  logps.defvjp(partial(_forward, tiling, room), partial(_backward, tiling, room))
  return logps(hidden, weight, scored)


def room_shape(tiling: Tiling, num_words: int, num_shards: int) -> tuple[int, ...]:
  """Shape of the float32 logits that are kept: chunks, blocks, T, words of a block, G, tokens of a chunk."""
  size, num_blocks = _block_size(num_words // tiling.vocab_shards, tiling.block)
  return tiling.kept, num_blocks, tiling.vocab_shards, size, num_shards, tiling.chunk


def _each_chunk(step: Callable[..., Any], scored: Scored, tiling: Tiling, state: Any) -> Any:
  """Folds `step(keeps, i, state)` over the chunks; those whose logits are kept come first."""
  count = jnp.max(-(-scored.count // tiling.chunk))
  if tiling.kept:
    keeping = jnp.minimum(count, tiling.kept)
    state = jax.lax.fori_loop(0, keeping, lambda i, state: step(True, i, state), state)
  return jax.lax.fori_loop(tiling.kept, count, lambda i, state: step(False, i, state), state)


def _chunk(hidden: Array, scored: Scored, i: Array, tiling: Tiling) -> _Chunk:
  source = _cut(scored.source, i, tiling)[..., None]
  return _Chunk(jnp.take_along_axis(hidden, source, axis=1), _cut(scored.target, i, tiling))


def _cut(x: Array, i: Array, tiling: Tiling) -> Array:
  return jax.lax.dynamic_slice_in_dim(x, i * tiling.chunk, tiling.chunk, axis=1)


def _blocks_of(weight: Array, tiling: Tiling) -> tuple[Float[Array, "T words D"], int, int]:
  """The words by vocabulary shard, the words of a block, and the number of blocks."""
  words = weight.reshape(tiling.vocab_shards, -1, weight.shape[1])
  return words, *_block_size(words.shape[1], tiling.block)


def _block_size(num_words: int, most: int) -> tuple[int, int]:
  """Words of a block and number of blocks."""
  num_blocks = -(-num_words // most)
  even = -(-num_words // num_blocks)
  return min(-(-even // _MULTIPLE) * _MULTIPLE, most, num_words), num_blocks


def _block(words: Array, j: Array, size: int) -> _Block:
  shards, length, _ = words.shape
  start = jnp.minimum(j * size, length - size)
  place = start + jnp.arange(size)
  word = jnp.arange(shards)[:, None] * length + place[None, :]
  return _Block(start, word, (place >= j * size)[None, :, None, None])


def _cut_words(words: Array, block: _Block, size: int) -> Float[Array, "T words D"]:
  return jax.lax.dynamic_slice_in_dim(words, block.start, size, axis=1)


def _logits(chunk: _Chunk, words: Array, block: _Block, size: int) -> Float[Array, "T words G chunk"]:
  return _product("twd,gcd->twgc", _cut_words(words, block, size), chunk.states)


def _is_target(block: _Block, target: Array) -> Array:
  # Compared instead of indexed: fuses with the reductions, and stays local where the vocabulary is sharded.
  return (target[None, None] == block.word[:, :, None, None]) & block.is_fresh


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
