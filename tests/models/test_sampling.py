"""Oracle: a sort in float64. Draws are compared as frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.sampling import Sampling, choose

LOGITS = np.log(np.asarray([0.05, 0.4, 0.15, 0.3, 0.1]))


def frequencies(how: Sampling, logits=LOGITS, count=20_000):
  keys = jax.random.split(jax.random.key(0), count)
  drawn = choose(jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits))), keys, how)
  return np.bincount(np.asarray(drawn), minlength=len(logits)) / count


def nucleus(p, top_k, top_p):
  """Probabilities after both cuts, by sorting."""
  order = np.argsort(-p, kind="stable")
  kept = np.zeros_like(p)
  kept[order[: top_k or len(p)]] = p[order[: top_k or len(p)]]
  kept /= kept.sum()
  sums = np.cumsum(kept[order])
  last = int(np.searchsorted(sums, top_p - 1e-12)) + 1
  kept[order[last:]] = 0
  return kept / kept.sum()


def test_at_temperature_zero_the_first_of_the_likeliest_is_taken():
  logits = jnp.asarray([[0.0, 3.0, 3.0], [5.0, 1.0, 2.0]])
  keys = jax.random.split(jax.random.key(1), 2)
  np.testing.assert_array_equal(choose(logits, keys, Sampling(0.0, top_k=1, top_p=0.1)), [1, 0])


@pytest.mark.parametrize(
  "how",
  [
    Sampling(1.0),
    Sampling(0.5),
    Sampling(2.0),
    Sampling(1.0, top_k=2),
    Sampling(1.0, top_k=9),
    Sampling(1.0, top_p=0.5),
    Sampling(1.0, top_p=0.71),
    Sampling(1.0, top_p=1e-6),
    Sampling(1.0, top_k=3, top_p=0.6),
    Sampling(0.7, top_k=4, top_p=0.9),
  ],
  ids=str,
)
def test_frequencies_are_those_of_the_sorted_cut(how):
  p = np.exp(LOGITS / how.temperature)
  expected = nucleus(p / p.sum(), how.top_k, how.top_p)
  np.testing.assert_allclose(frequencies(how), expected, atol=0.015)
  np.testing.assert_array_equal(frequencies(how) > 0, expected > 0)


def test_equally_likely_tokens_stay_together():
  found = frequencies(Sampling(1.0, 1), np.zeros(4))
  np.testing.assert_allclose(found, 0.25, atol=0.02)


def test_a_large_vocabulary_is_cut_where_a_sort_cuts_it():
  logits = np.random.default_rng(0).normal(size=(1, 5000)) * 3
  p = np.exp(logits[0] - logits.max())
  expected = nucleus(p / p.sum(), 0, 0.8)
  keys = jax.random.split(jax.random.key(3), 3000)
  drawn = choose(jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (3000, 5000)), keys, Sampling(1.0, 0, 0.8))
  assert set(np.asarray(drawn).tolist()) <= set(np.flatnonzero(expected).tolist())


def test_a_draw_depends_on_its_own_key_alone():
  logits = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (8, 5))
  keys = jax.random.split(jax.random.key(4), 8)
  whole = choose(logits, keys, Sampling(1.0, 4, 0.95))
  np.testing.assert_array_equal(whole[3:5], choose(logits[3:5], keys[3:5], Sampling(1.0, 4, 0.95)))


def test_the_likeliest_of_a_large_vocabulary_is_found_wherever_it_is():
  logits = np.random.default_rng(1).normal(size=(200, 1000)).astype(np.float32)
  places = np.arange(200) * 5
  logits[np.arange(200), places] = 9
  logits[:, 998:] = 9  # as likely, but later
  keys = jax.random.split(jax.random.key(1), 200)
  np.testing.assert_array_equal(choose(jnp.asarray(logits), keys, Sampling(0.0)), np.minimum(places, 998))


@pytest.mark.parametrize("size", [300, 301])
@pytest.mark.parametrize("how", [Sampling(1.0), Sampling(1.0, top_k=100), Sampling(1.0, top_p=0.9)], ids=str)
def test_frequencies_of_a_large_vocabulary_are_its_probabilities(how, size):
  logits = np.random.default_rng(2).normal(size=size) * 2
  p = np.exp(logits - logits.max())
  expected = nucleus(p / p.sum(), how.top_k, how.top_p)
  count, kept = 60_000, expected > 0
  found = frequencies(how, logits, count)
  assert not found[~kept].any()
  chi_square = count * np.sum((found - expected)[kept] ** 2 / expected[kept])
  assert chi_square < kept.sum() - 1 + 5 * np.sqrt(2 * (kept.sum() - 1))


def test_words_without_probability_are_never_drawn():
  logits = np.full(500, -np.inf)
  logits[[3, 130, 499]] = [0.0, -20.0, 1.0]
  found = np.flatnonzero(frequencies(Sampling(1.0), logits, 5000))
  assert set(found) <= {3, 130, 499}
  assert {3, 499} <= set(found)


def test_a_word_lies_in_the_vocabulary_whatever_the_logits():
  logits = jnp.stack([jnp.full(70, jnp.nan), jnp.full(70, -jnp.inf), jnp.zeros(70).at[69].set(jnp.inf)])
  keys = jax.random.split(jax.random.key(5), 3)
  for temperature in (0.0, 1.0):
    found = np.asarray(choose(logits, keys, Sampling(temperature)))
    assert ((found >= 0) & (found < 70)).all()
