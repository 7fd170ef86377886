"""conflict.py: the compromise against a minimiser of SciPy's on gradients in float64, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from amopo_jax.objective.conflict import check_radius, conflict_coefficients, nearest_conflict
from amopo_jax.types import InputError


def gradients(seed, contexts, size=20, conflict=0.0):
  rng = np.random.default_rng(seed)
  found = rng.normal(size=(contexts, size)) * rng.uniform(0.3, 3, (contexts, 1))
  found[0] -= conflict * found[1:].sum(0)
  return found


def simplex_weights(seed, contexts):
  return np.random.default_rng(seed + 1).dirichlet(np.full(contexts, 3.0))


def value(grads, weights, radius, p):
  whole, mixed = weights @ grads, p @ grads
  return mixed @ whole + radius * np.linalg.norm(whole) * np.linalg.norm(mixed)


def lowest(grads, weights, radius):
  contexts = len(grads)
  starts = [np.full(contexts, 1 / contexts), *np.eye(contexts) * 0.9 + 0.1 / contexts]
  fits = [
    minimize(
      lambda p: value(grads, weights, radius, p),
      start,
      bounds=[(0, 1)] * contexts,
      constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
      options={"ftol": 1e-14, "maxiter": 500},
    )
    for start in starts
  ]
  return min(fit.fun for fit in fits)


@pytest.mark.parametrize("contexts", [2, 3, *(pytest.param(count, marks=pytest.mark.slow) for count in (4, 6))])
@pytest.mark.parametrize("conflict", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("radius", [0.1, 0.5, 0.9])
def test_no_minimiser_finds_a_lower_value(contexts, conflict, radius):
  with jax.enable_x64(True):
    for seed in range(4):
      grads, weights = gradients(seed, contexts, conflict=conflict), simplex_weights(seed, contexts)
      products = grads @ grads.T
      scale = np.trace(products)
      found = np.asarray(nearest_conflict(jnp.asarray(products / scale), jnp.asarray(weights), radius))
      assert found.min() >= 0
      assert found.sum() == pytest.approx(1)
      expected = lowest(grads, weights, radius)
      assert value(grads, weights, radius, found) <= expected + 1e-4 * scale


def test_the_direction_is_that_of_the_formula():
  grads, weights, radius = gradients(3, 3, conflict=1.0), np.asarray([0.5, 0.3, 0.2]), 0.4
  products = jnp.asarray(grads @ grads.T, jnp.float32)
  found = np.asarray(conflict_coefficients(products, jnp.asarray(weights, jnp.float32), radius))
  p = np.asarray(nearest_conflict(products / jnp.trace(products), jnp.asarray(weights, jnp.float32), radius))
  whole, clipped = weights @ grads, np.minimum(p, weights) @ grads
  expected = whole + radius * np.linalg.norm(whole) * clipped / np.linalg.norm(clipped)
  np.testing.assert_allclose(found @ grads, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_worst_context_improves_more_than_under_the_sum():
  grads, weights = np.asarray([[1.0, 0.2], [-0.9, 0.4]]), np.asarray([0.5, 0.5])
  found = np.asarray(conflict_coefficients(jnp.asarray(grads @ grads.T), jnp.asarray(weights), 0.5))
  assert (grads @ (found @ grads)).min() > (grads @ (weights @ grads)).min()


def test_gradients_that_agree_keep_their_direction():
  one = np.asarray([1.0, 2.0, -1.0])
  grads, weights = np.stack([one, 2 * one, 0.5 * one]), np.asarray([0.2, 0.3, 0.5])
  found = np.asarray(conflict_coefficients(jnp.asarray(grads @ grads.T), jnp.asarray(weights), 0.5)) @ grads
  np.testing.assert_allclose(found, 1.5 * weights @ grads, rtol=1e-4)


def test_without_a_radius_or_a_gradient_the_weights_are_the_factors():
  weights = jnp.asarray([0.25, 0.75])
  products = jnp.asarray([[2.0, -1.0], [-1.0, 3.0]])
  np.testing.assert_allclose(conflict_coefficients(products, weights, 0.0), weights, rtol=1e-6)
  np.testing.assert_array_equal(conflict_coefficients(jnp.zeros((2, 2)), weights, 0.5), weights)


@pytest.mark.parametrize(
  "radius, contexts, message",
  [(1.0, 2, r"not in \[0, 1\)"), (-0.1, 2, "not in"), (float("nan"), 2, "not in"), (0.5, 9, "9 contexts; with more")],
)
def test_a_radius_that_cannot_be_is_refused(radius, contexts, message):
  with pytest.raises(InputError, match=message):
    check_radius(radius, contexts)


def test_many_contexts_without_a_compromise_are_fine():
  check_radius(0.0, 99)
