"""The attention to a cache against its formula in float64, for heads that fill a vector and for narrow ones."""

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.cache import grow, look_back, make_cache, seen_slots, write

ROWS, GROUPS, MEMBERS, PROMPT, SLOTS, SLOT = 3, 2, 3, 5, 9, 6
PADDING = np.asarray([0, 2, 4])


def oracle(q, keys, values):
  """Of one query to some keys: Σ softmax(q · k / √Dh) v."""
  scores = keys @ q / np.sqrt(len(q))
  shares = np.exp(scores - scores.max())
  return shares @ values / shares.sum()


@pytest.mark.parametrize("size", [4, 8, 16, 20])
@pytest.mark.parametrize("window, is_apart", [(None, True), (2, False)])
def test_a_token_looks_at_what_is_before_it_and_at_itself(size, window, is_apart):
  draw = np.random.default_rng(size)
  k, v = (draw.normal(size=(ROWS, SLOT + 1, GROUPS, size)) for _ in range(2))
  q = draw.normal(size=(ROWS, GROUPS * MEMBERS, size))
  of_stack = lambda x: jnp.asarray(x, jnp.float32)[None]
  cache = grow(make_cache([(of_stack(k[:, :PROMPT]), of_stack(v[:, :PROMPT]))]), SLOTS)
  assert cache.num_slots == SLOTS
  keys, values = cache.keys[0], cache.values[0]
  for slot in range(PROMPT, SLOT):
    keys, values = write(keys, values, of_stack(k[:, slot]), of_stack(v[:, slot]), jnp.asarray(slot))
  is_seen = seen_slots(SLOTS, jnp.asarray(SLOT), jnp.asarray(PADDING, jnp.int32), window)
  new = (jnp.asarray(x[:, SLOT], jnp.float32) for x in (k, v))
  found = look_back(jnp.asarray(q, jnp.float32), *new, keys[0], values[0], is_seen, is_apart=is_apart)
  for row, padding in enumerate(PADDING):
    places = np.arange(max(padding, 0 if window is None else SLOT - window + 1), SLOT + 1)
    for head in range(GROUPS * MEMBERS):
      group = head // MEMBERS
      expected = oracle(q[row, head], k[row, places, group], v[row, places, group])
      np.testing.assert_allclose(found[row, head], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size, is_like_keys", [(8, True), (16, False)])
def test_values_of_narrow_heads_lie_as_keys_do(size, is_like_keys):
  k = v = jnp.ones((1, ROWS, PROMPT, GROUPS, size))
  cache = make_cache([(k, v)])
  assert cache.keys[0].shape == (1, ROWS, GROUPS, size, PROMPT)
  assert (cache.values[0].shape == cache.keys[0].shape) == is_like_keys
