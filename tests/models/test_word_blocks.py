"""Blocks hold every word once as a fresh one, whatever the sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.word_blocks import block_at, block_size, blocks_of, cut_words


@pytest.mark.parametrize("shards, words, most", [(1, 1000, 300), (2, 514, 128), (1, 90, 512), (3, 300, 256)])
def test_every_word_is_fresh_once(shards, words, most):
  weight = jnp.arange(words, dtype=jnp.float32)[:, None]
  by_shard, size, count = blocks_of(weight, shards, most)
  found = []
  for j in range(count):
    block = block_at(by_shard, jnp.asarray(j), size)
    np.testing.assert_array_equal(cut_words(by_shard, block, size)[..., 0], block.word)
    fresh = np.broadcast_to(np.asarray(block.is_fresh)[..., 0, 0], block.word.shape)
    found += np.asarray(block.word)[fresh].tolist()
  assert sorted(found) == list(range(words))


@pytest.mark.parametrize(
  "words, most, expected", [(151_936, 2048, (2048, 75)), (1000, 300, (256, 4)), (90, 512, (90, 1))]
)
def test_blocks_are_of_one_size_of_whole_lanes(words, most, expected):
  assert block_size(words, most) == expected
