"""Each by its formula; that they reach the loss is tested with the objective (test_amopo.py, test_uncertainty.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import uniform
from amopo_jax.objective.reweigh import by_gap, by_loss, by_turn, by_variance

seeds = st.integers(0, 2**32 - 1)


def expected(alpha, factor):
  weighed = np.float64(alpha) * np.float64(factor)
  return weighed / weighed.sum(1, keepdims=True) * np.float64(alpha).sum(1, keepdims=True)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, power=st.sampled_from([-1.0, 0.5, 1.0, 2.0]))
def test_each_multiplies_and_keeps_the_sums_of_rows(seed, power, make_responses, make_noise):
  rng = np.random.default_rng(seed)
  alpha, factor = (rng.uniform(0.05, 1, (3, 4)).astype(np.float32) for _ in range(2))
  tell = lambda found, by: np.testing.assert_allclose(found, expected(alpha, by), rtol=2e-5)
  tell(by_turn(jnp.asarray(alpha), jnp.asarray(factor)), factor)
  tell(by_loss(jnp.asarray(alpha), jnp.asarray(factor), power), factor**power)
  tell(by_gap(jnp.asarray(alpha), -jnp.asarray(factor), abs(power)), factor ** abs(power))
  moments, noise = make_responses(seed, 3, 4).moments(), make_noise(seed, 3, 4)
  logs = rng.normal(size=4).astype(np.float32)
  found = by_variance(lambda *_: jnp.asarray(alpha), jnp.asarray(logs))(moments, noise)
  tell(found, np.exp(-np.float64(logs)))
  np.testing.assert_allclose(by_variance(uniform, jnp.zeros(4))(moments, noise), 0.25, rtol=1e-6)


def test_ties_have_no_weight_and_a_row_of_ties_stays_finite():
  alpha = jnp.full((2, 2), 0.5)
  found = by_gap(alpha, jnp.asarray([[0.0, -0.25], [0.0, 0.0]]), 1.0)
  np.testing.assert_allclose(found, [[0.0, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize("power", [-1.0, 2.0])
def test_no_gradient_flows_through_the_losses(power):
  alpha = jnp.full((1, 3), 1 / 3)
  sums = lambda losses: jnp.sum(by_loss(alpha, losses, power)[:, 0])
  np.testing.assert_array_equal(jax.grad(sums)(jnp.asarray([[0.5, 1.0, 2.0]])), 0.0)
