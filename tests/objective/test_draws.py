"""Quantiles against scipy's, from the tokens' probabilities in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from amopo_jax.objective.draws import beta_draws, gaussian_draws, logistic_normal_draws, truncated_normal_draws

ALL = (beta_draws, gaussian_draws, logistic_normal_draws, truncated_normal_draws)


@pytest.fixture(params=[(1, 1), (5, 3), (4, 8)], ids=str)
def case(request, make_responses, make_noise):
  size = (3, *request.param)
  responses, noise = make_responses(*size, min_length=3, max_length=40), make_noise(*size)
  return responses, noise, responses.mean_probs, responses.std_probs, np.asarray(noise, np.float64)


def test_a_gaussian(case):
  responses, noise, mean, std, eps = case
  np.testing.assert_allclose(gaussian_draws(responses.moments(), noise), mean + std * eps, rtol=1e-5, atol=1e-6)


def test_a_beta_of_the_same_mean_and_deviation(case):
  responses, noise, mean, std, eps = case
  total = np.maximum(mean * (1 - mean) / std**2 - 1, 0.01)
  expected = stats.beta.ppf(stats.norm.cdf(eps), mean * total, (1 - mean) * total)
  np.testing.assert_allclose(beta_draws(responses.moments(), noise), expected, atol=2e-3)


def test_a_gaussian_of_the_log_odds(case):
  responses, noise, mean, std, eps = case
  expected = special.expit(special.logit(mean) + std / (mean * (1 - mean)) * eps)
  np.testing.assert_allclose(logistic_normal_draws(responses.moments(), noise), expected, rtol=1e-4, atol=1e-5)


def test_a_gaussian_without_what_lies_outside(case):
  responses, noise, mean, std, eps = case
  expected = stats.truncnorm.ppf(stats.norm.cdf(eps), -mean / std, (1 - mean) / std, loc=mean, scale=std)
  np.testing.assert_allclose(truncated_normal_draws(responses.moments(), noise), expected, atol=2e-4)


@pytest.mark.parametrize("draw", ALL)
def test_more_noise_is_a_higher_draw(draw, make_responses):
  moments = make_responses(0, 4, 3, min_length=3).moments()
  drawn = [np.asarray(draw(moments, jnp.full((4, 3, 2), eps))) for eps in (-2.0, -0.5, 0.0, 0.5, 2.0)]
  assert np.all(np.diff(drawn, axis=0) >= -1e-6)


@pytest.mark.parametrize("draw", ALL[:1] + ALL[2:])
def test_those_of_a_bounded_distribution_stay_in_its_bounds(draw, make_responses, responses_of):
  sure, unsure = np.zeros(1000), np.full(1000, np.log(1e-30))
  extreme = responses_of([[[sure, unsure], [np.zeros(1), unsure[:0]], [np.log([0.5, 1.0]), np.log([1e-9, 1.0])]]])
  for moments in (make_responses(1, 4, 3, empty=(2,)).moments(), extreme.moments()):
    for eps in (-40.0, 0.0, 40.0):
      drawn = np.asarray(draw(moments, jnp.full(moments.length.shape, eps)))
      assert np.all((drawn >= 0) & (drawn <= 1))


@pytest.mark.parametrize("draw", ALL)
def test_without_deviation_the_draw_is_the_mean(draw, make_responses, make_noise):
  responses = make_responses(2, 3, 4, max_length=1)
  np.testing.assert_allclose(draw(responses.moments(), make_noise(2, 3, 4)), responses.mean_probs, atol=1e-5)
