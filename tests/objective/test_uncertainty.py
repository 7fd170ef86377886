import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import by_variance, descend, gaussian, uniform


@settings(deadline=None, max_examples=20)
@given(
  st.lists(st.tuples(st.floats(-2, 2), st.floats(0.0, 5), st.integers(0, 9)), min_size=1, max_size=6),
  st.floats(0.01, 0.5),
)
def test_a_step_follows_the_gradient_of_what_it_says(terms, rate):
  s, means, counts = (np.asarray(column, np.float64) for column in zip(*terms, strict=True))
  found = descend(jnp.float32(s), jnp.float32(means * counts), jnp.float32(counts), rate)
  total = lambda at: np.sum((np.exp(-at) * means + at) * (counts > 0))
  eye, h = np.eye(len(s)), 1e-6
  gradient = np.array([(total(s + h * one) - total(s - h * one)) / (2 * h) for one in eye])
  np.testing.assert_allclose(found, s - rate * gradient, rtol=1e-5, atol=2e-5)


def test_the_variance_of_a_loss_that_stands_still_becomes_that_loss():
  s, losses = jnp.zeros(3), jnp.array([0.2, 1.0, 3.0])
  for _ in range(300):
    s = descend(s, losses * 4, jnp.full(3, 4.0), 0.1)
  np.testing.assert_allclose(jnp.exp(s), losses, rtol=1e-3)


@pytest.mark.parametrize("alpha_fn", [uniform, gaussian])
def test_a_variance_divides_the_weight_and_rows_still_sum_to_1(alpha_fn, make_responses, make_noise):
  moments, noise = make_responses(2, 3, 4).moments(), make_noise(2, 3, 4)
  s = np.array([0.0, -1.0, 2.0, 0.5])
  plain = np.asarray(alpha_fn(moments, noise), np.float64)
  expected = plain * np.exp(-s) / np.sum(plain * np.exp(-s), axis=1, keepdims=True)
  np.testing.assert_allclose(by_variance(alpha_fn, jnp.float32(s))(moments, noise), expected, rtol=1e-5)


def test_log_variances_of_any_size_leave_finite_weights(make_responses, make_noise):
  moments, noise = make_responses(2, 3, 2).moments(), make_noise(2, 3, 2)
  found = jax.jit(lambda s: by_variance(uniform, s)(moments, noise))(jnp.array([-300.0, 300.0]))
  np.testing.assert_allclose(found, np.tile([1.0, 0.0], (3, 1)))
