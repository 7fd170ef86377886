"""From logits to the next token: greedy, or by chance at a temperature, among the likeliest.

Without a sort: the likeliest tokens are those above a threshold, which is found by bisection in the 31 bits of a
positive float. The TPU's compiler takes minutes for a sort of thousands. A draw, and the search for the largest of
more than 256, first finds a block of words and then a word of it: two random numbers a sequence instead of one for
every word, and one pass over the words (docs/decisions/0019).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

_PADDED = 64
"""To a multiple of this a vocabulary is padded that is odd, and so lies whole on every device."""

_FEW = 256
"""Among so many words the largest is looked for at once, and not block by block."""

_BITS_OF_ONE = 0x3F800000
"""The bits of 1.0 as an integer; those of smaller positive floats are smaller, in the same order."""


class Sampling(NamedTuple):
  """How tokens are drawn, in this order: temperature, `top_k`, `top_p`.

  Attributes:
    temperature: of the softmax, ≥ 0; 0: the likeliest token, whatever the rest says.
    top_k: among how many of the likeliest; 0: all.
    top_p: among the fewest of the likeliest whose probabilities sum to this, in (0, 1].
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0


GREEDY = Sampling()


def choose(logits: Float[Array, "B V"], keys: Key[Array, " B"], how: Sampling) -> Int[Array, " B"]:
  """The next token of every sequence.

  Args:
    logits: float32.
    keys: one per sequence, so that a draw does not depend on the others in the batch.
    how: static.

  Returns:
    Tokens; of several likeliest ones the first.
  """
  if how.temperature == 0:
    return _first_largest(logits)
  p = jax.nn.softmax(logits / how.temperature)
  if how.top_k:
    p = _keep(p, lambda is_kept: jnp.sum(is_kept, axis=-1) >= how.top_k)
  if how.top_p < 1:
    p = _keep(p, lambda is_kept: jnp.sum(jnp.where(is_kept, p, 0), axis=-1) >= how.top_p)
  return _draw(p, keys)


def _first_largest(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
  """`jnp.argmax`, of many words block first."""
  if logits.shape[-1] <= _FEW:
    return _first_largest_of_few(logits)
  blocks = _blocks(logits, fill=-jnp.inf)
  block = _first_largest_of_few(jnp.max(blocks, axis=-1))
  found = block * blocks.shape[-1] + _first_largest_of_few(_row_of(blocks, block))
  return jnp.minimum(found, logits.shape[-1] - 1)  # beyond the vocabulary where a logit is NaN


def _first_largest_of_few(x: Float[Array, "B n"]) -> Int[Array, " B"]:
  """`jnp.argmax`, as two reductions that a CPU makes many words at a time, where it takes pairs word by word."""
  size = x.shape[-1]
  is_largest = x == jnp.max(x, axis=-1, keepdims=True)
  return jnp.min(jnp.where(is_largest, jnp.arange(size, dtype=jnp.int32), size - 1), axis=-1)


def _draw(p: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
  """A word with its probability: a block with the sum of its words', then one of them by a number of its own."""
  u = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
  blocks = _blocks(p, fill=0.0)
  block = _draw_of_few(jnp.sum(blocks, axis=-1), u[:, 0])
  return block * blocks.shape[-1] + _draw_of_few(_row_of(blocks, block), u[:, 1])


def _draw_of_few(weights: Float[Array, "B n"], u: Float[Array, " B"]) -> Int[Array, " B"]:
  """The first whose sum with those before it exceeds `u` of the whole, 0 ≤ u < 1, and that weighs something.

  The compiler may sum each of them in another order, so that a sum can be larger by its rounding alone.
  """
  sums, places = jnp.cumsum(weights, axis=-1), jnp.arange(weights.shape[-1], dtype=jnp.int32)
  last = jnp.max(jnp.where(weights > 0, places, 0), axis=-1)
  is_behind = (sums > (u * sums[:, -1])[:, None]) & (weights > 0)
  return jnp.min(jnp.where(is_behind, places, last[:, None]), axis=-1)


def _blocks(x: Float[Array, "B V"], fill: float) -> Float[Array, "B n block"]:
  """A power of two of blocks, so that of words that are split over devices each device has whole ones."""
  if x.shape[-1] % 2:
    x = jnp.pad(x, ((0, 0), (0, -x.shape[-1] % _PADDED)), constant_values=fill)
  number = x.shape[-1] & -x.shape[-1]
  while number * number > x.shape[-1]:
    number //= 2
  return x.reshape(len(x), number, -1)


def _row_of(blocks: Float[Array, "B n block"], block: Int[Array, " B"]) -> Float[Array, "B block"]:
  return jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]


def _keep(p: Float[Array, "B V"], is_enough: Callable[[Bool[Array, "B V"]], Bool[Array, " B"]]) -> Float[Array, "B V"]:
  """The fewest of the likeliest that are enough, with equally likely ones, renormalised."""
  bits = jax.lax.bitcast_convert_type(p, jnp.int32)

  def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = ends
    middle = low + (high - low) // 2
    is_low = is_enough(bits >= middle[:, None])
    return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

  low = jnp.zeros(len(p), jnp.int32)  # from here on all are kept, which is enough, or all that can be had
  low, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, _BITS_OF_ONE + 1)))
  kept = jnp.where(bits >= low[:, None], p, 0)
  return kept / jnp.sum(kept, axis=-1, keepdims=True)
