"""Oracle: all logits at once, in float64."""

import jax.numpy as jnp
import numpy as np

from amopo_jax.models.softmax import Softmax

SHARDS, WORDS, TOKENS = 2, 11, 5


def test_blocks_that_overlap_over_two_shards_give_the_whole_softmax():
  draw = np.random.default_rng(0)
  logits = draw.normal(0, 30, (SHARDS, WORDS, TOKENS))
  target = draw.integers(0, SHARDS * WORDS, TOKENS)
  softmax = Softmax.empty((SHARDS, TOKENS))
  for start, first in ((0, 0), (4, 4), (7, 8)):  # the last block of four begins one word early
    place = np.arange(start, start + 4)
    is_fresh = (place >= first)[None, :, None]
    word = np.arange(SHARDS)[:, None] * WORDS + place
    is_target = (word[..., None] == target) & is_fresh
    softmax = softmax.add(jnp.asarray(logits[:, place], jnp.float32), jnp.asarray(is_fresh), jnp.asarray(is_target))
  logp, lse = softmax.finish()
  flat = logits.reshape(-1, TOKENS)
  expected = np.log(np.sum(np.exp(flat), axis=0))
  np.testing.assert_allclose(lse, expected, rtol=1e-6)
  np.testing.assert_allclose(logp, flat[target, np.arange(TOKENS)] - expected, rtol=1e-5, atol=1e-5)
