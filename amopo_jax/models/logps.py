"""Log-probabilities of given words, without ever holding tokens × vocabulary logits.

Two nested loops with a hand-written gradient: over chunks of tokens and the pieces of the last one, as many as there
are tokens to score, and over blocks of the vocabulary (`word_blocks.py`), so that a block of logits stays in the cache
of a CPU or in the fast memory of an accelerator. The forward pass keeps one logsumexp per token, in the manner of an
online softmax (arXiv 1805.02867). The backward pass computes the logits once more, but for the tokens of the first
`kept` chunks, whose logits were kept: 6 instead of 8 operations per token, word and unit of width, for memory that does
not grow with the batch.

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
from amopo_jax.models.word_blocks import Block, block_at, block_size, blocks_of, cut_words

CHUNKS, PIECES, SPANS, KEPT_SPANS = "head_chunks", "head_pieces", "spans", "kept_spans"
"""In the names of the loops over scored tokens, by which a plan tells how often each turns."""

_PIECES, _LEAST_PIECE = 8, 64
"""Of a chunk, for what remains behind the whole ones; and tokens of a piece, at least."""


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


class _Span(NamedTuple):
  """Some of the scored tokens: number `number` of the spans of `size` tokens; its logits are kept, or not."""

  number: Array
  size: int
  is_kept: bool

  def place(self, chunk: int, block: Array) -> tuple[Any, ...]:
    """Where the logits of a block of words lie among the kept ones, see `room_shape`."""
    start = self.number * self.size
    return start // chunk, block, ..., slice(None) if self.size == chunk else jax.ds(start % chunk, self.size)


class _Chunk(NamedTuple):
  """The states that predict the tokens of a span, and the tokens."""

  states: Float[Array, "G chunk D"]
  target: Int[Array, "G chunk"]


def _primal(tiling: Tiling, hidden: Array, weight: Array, scored: Scored) -> Float[Array, "G N"]:
  return _forward(tiling._replace(kept=0), None, hidden, weight, scored)[0]


def _forward(
  tiling: Tiling, room: Room | None, hidden: Array, weight: Array, scored: Scored
) -> tuple[Array, tuple[Any, ...]]:
  words, size, num_blocks = blocks_of(weight, tiling.vocab_shards, tiling.block)

  def project(span: _Span, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    logps, lses, kept = found
    chunk = _chunk(hidden, scored, span)

    def add(j: Array, state: tuple[Softmax, Array]) -> tuple[Softmax, Array]:
      softmax, kept = state
      block, place = block_at(words, j, size), span.place(tiling.chunk, j)
      logits = _logits(chunk, words, block, size)
      if span.is_kept and room is None:
        kept = kept.at[place].set(logits)
      elif span.is_kept and room is not None:
        room[place] = logits
      return softmax.add(logits, block.is_fresh, _is_target(block, chunk.target)), kept

    softmax, kept = jax.lax.fori_loop(
      0, num_blocks, add, (Softmax.empty((tiling.vocab_shards, *chunk.target.shape)), kept)
    )
    logp, lse = softmax.finish()
    put = lambda into, x: jax.lax.dynamic_update_slice_in_dim(into, x, span.number * span.size, axis=1)
    return put(logps, logp), put(lses, lse), kept

  zeros = jnp.zeros(scored.slot.shape, jnp.float32)
  shape = room_shape(tiling, weight.shape[0], hidden.shape[0]) if room is None else (0,)
  logps, lses, kept = _each_span(project, scored, tiling, (zeros, zeros, jnp.zeros(shape, jnp.float32)))
  return logps, (hidden, weight, scored, lses, kept)


def _backward(
  tiling: Tiling, room: Room | None, residuals: tuple[Any, ...], d_logp: Array
) -> tuple[Array, Array, None]:
  hidden, weight, scored, lses, kept = residuals
  kept = kept if room is None else room
  words, size, num_blocks = blocks_of(weight, tiling.vocab_shards, tiling.block)
  # Mapped over the shards, not indexed by them: else the compiler sums d_hidden over all devices in each turn.
  add_at = jax.vmap(lambda into, at, x: into.at[at].add(x))

  def pull_back(span: _Span, grads: tuple[Array, Array]) -> tuple[Array, Array]:
    d_hidden, d_words = grads
    chunk = _chunk(hidden, scored, span)
    pull, lse = (_cut(x, span)[None, None] for x in (d_logp, lses))

    def one_block(j: Array, grads: tuple[Array, Array]) -> tuple[Array, Array]:
      d_states, d_words = grads
      block = block_at(words, j, size)
      logits = kept[span.place(tiling.chunk, j)] if span.is_kept else _logits(chunk, words, block, size)
      is_target = _is_target(block, chunk.target).astype(jnp.float32)
      d_logits = jnp.where(block.is_fresh, pull * (is_target - jnp.exp(logits - lse)), 0.0).astype(hidden.dtype)
      d_states = d_states + _product("twd,twgc->tdgc", cut_words(words, block, size), d_logits)
      d_block = _product("twgc,gcd->gtwd", d_logits, chunk.states)
      before = jax.lax.dynamic_slice_in_dim(d_words, block.start, size, axis=2)
      return d_states, jax.lax.dynamic_update_slice_in_dim(d_words, before + d_block, block.start, axis=2)

    zeros = jnp.zeros((tiling.vocab_shards, hidden.shape[2], *chunk.target.shape), jnp.float32)
    d_states, d_words = jax.lax.fori_loop(0, num_blocks, one_block, (zeros, d_words))
    d_states = jnp.moveaxis(jnp.sum(d_states, axis=0), 0, -1).astype(hidden.dtype)
    return add_at(d_hidden, _cut(scored.source, span), d_states), d_words

  # One gradient of the weight per shard, summed once at the end: no communication inside the loops.
  zeros = jnp.zeros_like(hidden), jnp.zeros((hidden.shape[0], *words.shape), jnp.float32)
  d_hidden, d_words = _each_span(pull_back, scored, tiling, zeros)
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
  size, num_blocks = block_size(num_words // tiling.vocab_shards, tiling.block)
  return tiling.kept, num_blocks, tiling.vocab_shards, size, num_shards, tiling.chunk


def _each_span(step: Callable[[_Span, Any], Any], scored: Scored, tiling: Tiling, state: Any) -> Any:
  """Folds `step(span, state)` over spans that hold all scored tokens; those whose logits are kept come first.

  Spans are chunks, and behind the last whole chunk pieces of it: as many tokens as there are to score take part, but
  for a piece. Only where the pieces would be most of a chunk, they are one.
  """
  piece = _piece_size(tiling.chunk)
  most = jnp.max(scored.count)
  whole = whole_chunks(most, tiling.chunk)

  def fold(size: int, start: Array | int, middle: Array | int, stop: Array, state: Any) -> Any:
    """Spans before `middle` keep their logits."""
    if tiling.kept:
      with jax.named_scope(KEPT_SPANS):
        state = jax.lax.fori_loop(start, middle, lambda i, state: step(_Span(i, size, True), state), state)
    else:
      middle = start
    with jax.named_scope(SPANS):
      return jax.lax.fori_loop(middle, stop, lambda i, state: step(_Span(i, size, False), state), state)

  with jax.named_scope(CHUNKS):
    state = fold(tiling.chunk, 0, jnp.minimum(whole, tiling.kept), whole, state)
  if not piece:
    return state
  first, last = whole * _PIECES, -(-most // piece)
  with jax.named_scope(PIECES):
    return fold(piece, first, jnp.where(whole < tiling.kept, last, first), last, state)


def whole_chunks(count: Array | int, chunk: int) -> Any:
  """How many chunks of `chunk` tokens `count` scored tokens take, before the pieces; of a type like `count`."""
  return (count + chunk // 4) // chunk if _piece_size(chunk) else -(-count // chunk)


def _piece_size(chunk: int) -> int:
  return chunk // _PIECES if chunk % _PIECES == 0 and chunk >= _PIECES * _LEAST_PIECE else 0


def _chunk(hidden: Array, scored: Scored, span: _Span) -> _Chunk:
  source = _cut(scored.source, span)[..., None]
  return _Chunk(jnp.take_along_axis(hidden, source, axis=1), _cut(scored.target, span))


def _cut(x: Array, span: _Span) -> Array:
  return jax.lax.dynamic_slice_in_dim(x, span.number * span.size, span.size, axis=1)


def _logits(chunk: _Chunk, words: Array, block: Block, size: int) -> Float[Array, "T words G chunk"]:
  return _product("twd,gcd->twgc", cut_words(words, block, size), chunk.states)


def _is_target(block: Block, target: Array) -> Array:
  # Compared instead of indexed: fuses with the reductions, and stays local where the vocabulary is sharded.
  return (target[None, None] == block.word[:, :, None, None]) & block.is_fresh


def _product(spec: str, x: Array, y: Array) -> Array:
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
