"""moments.py against statistics of the tokens themselves, in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import mean_logps, mean_probs, std_probs
from amopo_jax.types import ResponseMoments

STATISTICS = {"mean_logps": mean_logps, "mean_probs": mean_probs, "std_probs": std_probs}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("contexts", range(1, 9))
def test_agrees_with_the_tokens(name, contexts, make_responses):
  responses = make_responses(contexts, 5, contexts, empty=(3,))
  got = STATISTICS[name](responses.moments())
  np.testing.assert_allclose(got, getattr(responses, name), rtol=2e-6, atol=2e-6)


def test_std_is_exact_in_float64(make_responses, x64):
  responses = make_responses(0, 4, 3, max_length=300)
  np.testing.assert_allclose(std_probs(responses.moments(np.float64)), responses.std_probs, rtol=1e-12)


def test_std_is_the_sample_deviation(responses_of):
  """Two tokens of probability 0.2 and 0.8: √(2 · 0.3² / 1), where the population's deviation would be 0.3."""
  tokens = np.log([0.2, 0.8])
  np.testing.assert_allclose(std_probs(responses_of([[[tokens, tokens]]]).moments()), np.sqrt(0.18), rtol=1e-6)


def test_one_token_has_a_mean_and_no_spread(responses_of):
  moments = responses_of([[[np.log([0.5]), np.log([1e-30])]]]).moments()
  np.testing.assert_allclose(mean_probs(moments)[0, 0], [0.5, 1e-30], rtol=1e-6)
  np.testing.assert_array_equal(std_probs(moments), 0.0)


@pytest.mark.parametrize("name", STATISTICS)
def test_empty_place_is_zero_whatever_its_sums(name):
  moments = ResponseMoments(*(jnp.full((1, 1, 2), value) for value in (0.0, -3.0, 2.0, 5.0)))
  np.testing.assert_array_equal(STATISTICS[name](moments), 0.0)


def test_extreme_sums(responses_of):
  long = np.full(1000, -10.0)
  certain = np.zeros(1000)
  moments = responses_of([[[long, certain], [np.log([1e-30, 1.0]), np.full(2, np.log(1e-30))]]]).moments()
  np.testing.assert_allclose(moments.sum_logp[0, 0, 0], -1e4)
  np.testing.assert_allclose(mean_logps(moments)[0, 0], [-10.0, 0.0])
  np.testing.assert_allclose(mean_probs(moments)[0, 1], [0.5, 1e-30], rtol=1e-6)
  np.testing.assert_allclose(std_probs(moments)[0, :, 0], [0.0, np.sqrt(0.5)], atol=1e-7)


@pytest.mark.parametrize("length", [10, 100, 500, 2000])
@pytest.mark.parametrize(("sigma", "near_one"), [(1e-4, 2e-3), (1e-3, 2e-3), (1e-2, 4e-4), (1e-1, 4e-5)])
def test_how_exact_the_deviation_is_in_float32(length, sigma, near_one):
  """The table of method.md: sums as the head takes them, token by token; twice its figures are the tolerance."""
  distance = np.abs(np.random.default_rng(length).standard_normal((32, 2, length))) * sigma / 0.6
  for p, atol, rtol in ((1 - np.minimum(distance, 1.0), near_one, 0.0), (np.minimum(distance, 1.0), 0.0, 1e-5)):
    p = np.float32(np.maximum(p, 1e-12))
    slot = np.arange(64).repeat(length)
    terms = jnp.stack([jnp.asarray(x.reshape(-1)) for x in (np.ones_like(p), np.log(p), p, p * p)], -1)
    sums = jnp.zeros((64, 4), jnp.float32).at[slot].add(terms)
    moments = ResponseMoments(*jnp.moveaxis(sums, -1, 0).reshape(4, 32, 1, 2))
    np.testing.assert_allclose(std_probs(moments)[:, 0], np.std(np.float64(p), axis=-1, ddof=1), rtol=rtol, atol=atol)


def test_negative_cancellation_is_clamped():
  """Σp² rounded below |y| μ²: the variance would be negative and its root NaN."""
  moments = ResponseMoments(*(jnp.full((1, 1, 2), value) for value in (3.0, -3.0, 1.5, 0.75 - 1e-6)))
  assert float(moments.sum_p2[0, 0, 0]) < float(moments.sum_p[0, 0, 0] ** 2 / 3)
  np.testing.assert_array_equal(std_probs(moments), 0.0)


@pytest.mark.parametrize("name", STATISTICS)
def test_gradients_are_finite_where_nothing_varies(name, responses_of):
  """An empty place, one token, and equal tokens: the three ways to a standard deviation of zero."""
  half = np.log([0.5])
  moments = responses_of([[[half[:0], half], [half.repeat(4), np.log([0.2, 0.9])]]]).moments()
  gradient = jax.grad(lambda m: jnp.sum(STATISTICS[name](m)))(moments)
  for field in gradient:
    assert np.all(np.isfinite(field))
    np.testing.assert_array_equal(field[0, 0, 0], 0.0)


@settings(max_examples=30, deadline=None)
@given(logps=st.lists(st.floats(-50.0, 0.0), min_size=1, max_size=12))
def test_statistics_stay_in_their_range(logps, responses_of):
  tokens = np.array(logps)
  moments = responses_of([[[tokens, tokens]]]).moments()
  slack = 1e-5
  assert tokens.min() * (1 + slack) - slack <= float(mean_logps(moments)[0, 0, 0]) <= 0.0
  assert 0.0 <= float(mean_probs(moments)[0, 0, 0]) <= 1 + slack
  assert 0.0 <= float(std_probs(moments)[0, 0, 0]) <= np.sqrt(0.5) + slack


@settings(max_examples=20, deadline=None)
@given(logps=st.lists(st.floats(-8.0, 0.0), min_size=1, max_size=8), times=st.integers(2, 5))
def test_means_do_not_depend_on_the_length(logps, times, responses_of):
  """Said twice over, a response has the same reward: mean, not sum."""
  once = np.array(logps)
  moments = responses_of([[[once, np.tile(once, times)]]]).moments()
  for mean in (mean_logps, mean_probs):
    np.testing.assert_allclose(mean(moments)[..., 0], mean(moments)[..., 1], rtol=1e-5, atol=1e-6)
