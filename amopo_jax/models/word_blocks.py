"""The vocabulary in blocks of words of equal size, on every device that has a share of it.

The last block begins earlier where the size does not divide, and repeats some words of the one before.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_MULTIPLE = 128
"""Blocks of equal size are rounded up to this many words, a TPU's lanes."""


class Block(NamedTuple):
  """Words number `j * size` on of every vocabulary shard; the last block begins earlier, and repeats some.

  Attributes:
    start: first word.
    word: index of each word in the vocabulary.
    is_fresh: False for a word of the block before.
  """

  start: Array
  word: Int[Array, "T words"]
  is_fresh: Array


def blocks_of(weight: Float[Array, "V D"], shards: int, most: int) -> tuple[Float[Array, "T words D"], int, int]:
  """The words by vocabulary shard, the words of a block, and the number of blocks.

  Args:
    weight: all words.
    shards: T; divides V.
    most: words of a block.
  """
  words = weight.reshape(shards, -1, weight.shape[1])
  return words, *block_size(words.shape[1], most)


def block_size(num_words: int, most: int) -> tuple[int, int]:
  """Words of a block and number of blocks."""
  num_blocks = -(-num_words // most)
  even = -(-num_words // num_blocks)
  return min(-(-even // _MULTIPLE) * _MULTIPLE, most, num_words), num_blocks


def block_at(words: Float[Array, "T words D"], j: Array, size: int) -> Block:
  """Block j of `size` words."""
  shards, length, _ = words.shape
  start = jnp.minimum(j * size, length - size)
  place = start + jnp.arange(size)
  word = jnp.arange(shards)[:, None] * length + place[None, :]
  return Block(start, word, (place >= j * size)[None, :, None, None])


def cut_words(words: Float[Array, "T words D"], block: Block, size: int) -> Float[Array, "T block D"]:
  """The words of a block."""
  return jax.lax.dynamic_slice_in_dim(words, block.start, size, axis=1)
