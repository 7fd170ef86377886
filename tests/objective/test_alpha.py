"""alpha.py: the contract for every function, each function against its formula, and the released formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import (
  ALPHAS,
  WHOLE_BATCH,
  fixed,
  gaussian,
  gaussian_flat,
  jitter,
  softmax_mean,
  uniform,
)
from amopo_jax.types import InputError, ResponseMoments

FIXED = fixed((0.5, 0.0, 1.5))
PER_PAIR = {name: fn for name, fn in ALPHAS.items() if name not in WHOLE_BATCH} | {"fixed": FIXED}
seeds = st.integers(0, 10_000)


def softmax(scores: np.ndarray) -> np.ndarray:
  """Over the last axis, in float64, straight from the definition."""
  return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


@pytest.mark.parametrize("contexts", range(1, 9))
def test_formulas(contexts, make_responses, make_noise):
  responses = make_responses(contexts, 5, contexts)
  noise = make_noise(contexts, 5, contexts)
  mean, std, eps = responses.mean_probs, responses.std_probs, np.asarray(noise, np.float64)
  expected = {
    "gaussian": softmax((mean + std * eps).sum(-1)),
    "softmax_mean": softmax(mean.sum(-1)),
    "jitter": softmax((std * eps).sum(-1)),
    "uniform": np.full((5, contexts), 1 / contexts),
  }
  for name, alpha in expected.items():
    np.testing.assert_allclose(ALPHAS[name](responses.moments(), noise), alpha, rtol=1e-5, err_msg=name)


def released_alpha(responses, noise: np.ndarray) -> np.ndarray:
  """The released computation step by step: one draw per sequence, context-major, softmax over all of them.

  Its order of the sequences is [context 0 of all pairs, context 1 of all pairs, …].
  """
  batch, contexts = len(responses.tokens), len(responses.tokens[0])
  drawn = []
  for member in range(2):
    drawn.append([])
    for k in range(contexts):
      for b in range(batch):
        probs = np.exp(responses.tokens[b][k][member])
        drawn[member].append(np.mean(probs) + np.std(probs, ddof=1) * noise[b, k, member])
  return softmax(np.array(drawn[0]) + np.array(drawn[1])).reshape(contexts, batch).T


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_flat_is_the_released_softmax(batch, make_responses, make_noise):
  responses = make_responses(batch, batch, 4, min_length=2)
  noise = make_noise(batch, batch, 4)
  alpha = gaussian_flat(responses.moments(), noise)
  np.testing.assert_allclose(alpha * 4, released_alpha(responses, np.asarray(noise)), rtol=1e-5)
  np.testing.assert_allclose(np.sum(alpha), 1 / 4, rtol=1e-6)


def test_flat_is_gaussian_over_k_for_one_pair(make_responses, make_noise):
  moments, noise = make_responses(3, 1, 4).moments(), make_noise(3, 1, 4)
  np.testing.assert_allclose(gaussian_flat(moments, noise) * 4, gaussian(moments, noise), rtol=1e-6)


def test_flat_leaves_empty_places_out(make_responses, make_noise):
  padded = make_responses(5, 4, 3, empty=(1, 3)).moments()
  noise = make_noise(5, 4, 3)
  real = np.array([0, 2])
  alpha = gaussian_flat(padded, noise)
  alone = gaussian_flat(ResponseMoments(*(field[real] for field in padded)), noise[real])
  np.testing.assert_allclose(alpha[real], alone, rtol=1e-6)
  np.testing.assert_array_equal(alpha[np.array([1, 3])], 0.0)


def test_flat_of_nothing_is_nothing(make_responses, make_noise):
  moments = make_responses(0, 2, 3, empty=(0, 1)).moments()
  np.testing.assert_array_equal(gaussian_flat(moments, make_noise(0, 2, 3)), 0.0)


def test_whole_batch_names_exactly_those_that_see_other_pairs(make_responses, make_noise):
  moments, noise = make_responses(1, 3, 4).moments(), make_noise(1, 3, 4)
  first = ResponseMoments(*(field[:1] for field in moments))
  differs = {
    name for name, fn in ALPHAS.items() if not np.allclose(fn(moments, noise)[:1], fn(first, noise[:1]), rtol=1e-5)
  }
  assert differs == WHOLE_BATCH


@pytest.mark.parametrize("name", PER_PAIR)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_rows_are_weights(name, seed, make_responses, make_noise):
  alpha = PER_PAIR[name](make_responses(seed, 4, 3, empty=(2,)).moments(), 3 * make_noise(seed, 4, 3))
  assert np.all(np.asarray(alpha) >= 0)
  np.testing.assert_allclose(np.sum(alpha, axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", [*ALPHAS, "fixed"])
def test_constant_under_differentiation(name, make_responses, make_noise):
  moments, noise = make_responses(0, 2, 3).moments(), make_noise(0, 2, 3)
  fn = {**ALPHAS, "fixed": FIXED}[name]
  gradient = jax.grad(lambda m: jnp.sum(fn(m, noise)[:, 0]))(moments)
  for field in gradient:
    np.testing.assert_array_equal(field, 0.0)


@pytest.mark.parametrize("name", ALPHAS)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_permuting_contexts_and_pairs_permutes_alpha(name, seed, make_responses, make_noise):
  moments, noise = make_responses(seed, 4, 3).moments(), make_noise(seed, 4, 3)
  rng = np.random.default_rng(seed)
  b, k = rng.permutation(4)[:, None], rng.permutation(3)[None]
  permuted = ALPHAS[name](ResponseMoments(*(field[b, k] for field in moments)), noise[b, k])
  np.testing.assert_allclose(permuted, ALPHAS[name](moments, noise)[b, k], rtol=1e-5)


def test_without_noise_the_gaussian_is_its_mean(make_responses):
  moments = make_responses(7, 4, 5).moments()
  silence = jnp.zeros((4, 5, 2))
  np.testing.assert_array_equal(gaussian(moments, silence), softmax_mean(moments, silence))
  np.testing.assert_allclose(jitter(moments, silence), uniform(moments, silence), rtol=1e-6)


def test_one_token_responses_have_nothing_to_sample(make_responses, make_noise):
  moments, noise = make_responses(2, 3, 4, max_length=1).moments(), make_noise(2, 3, 4)
  np.testing.assert_array_equal(gaussian(moments, noise), softmax_mean(moments, noise))


@pytest.mark.parametrize("name", ALPHAS)
def test_extreme_probabilities(name, responses_of):
  sure, unsure = np.zeros(1000), np.full(1000, np.log(1e-30))
  moments = responses_of([[[sure, sure], [unsure, unsure], [np.zeros(1), unsure[:0]]]]).moments()
  alpha = ALPHAS[name](moments, jnp.full((1, 3, 2), 40.0))
  assert np.all(np.isfinite(alpha))
  if name == "softmax_mean":
    np.testing.assert_allclose(alpha, softmax(np.array([[2.0, 0.0, 1.0]])), rtol=1e-5)


def test_fixed_weights_are_shares(make_responses, make_noise):
  moments, noise = make_responses(0, 2, 3).moments(), make_noise(0, 2, 3)
  np.testing.assert_allclose(fixed((1.0, 1.0, 2.0))(moments, noise), [[0.25, 0.25, 0.5]] * 2)


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -0.1), (1.0, float("nan")), (float("inf"), 1.0)])
def test_fixed_refuses_what_cannot_be_normalised(weights):
  with pytest.raises(InputError, match="one finite weight >= 0 per context"):
    fixed(weights)


def test_fixed_refuses_another_number_of_contexts(make_responses, make_noise):
  with pytest.raises(InputError, match="2 weights for 3 contexts"):
    fixed((1.0, 1.0))(make_responses(0, 1, 3).moments(), make_noise(0, 1, 3))


def moments_with(mean: list[float], std: float, pairs: int, length: int = 101) -> ResponseMoments:
  """Moments of responses which have these statistics in each context, both members alike."""
  mu = np.broadcast_to(np.array(mean)[None, :, None], (pairs, len(mean), 2))
  fields = (np.full_like(mu, length), -np.ones_like(mu), length * mu, (length - 1) * std**2 + length * mu**2)
  return ResponseMoments(*(jnp.asarray(field, jnp.float32) for field in fields))


def test_how_adaptive_the_gaussian_is(make_noise):
  """The figures of docs/method.md, "How adaptive are the weights?"."""
  noise = make_noise(0, 40_000, 4)
  equal = np.asarray(gaussian(moments_with([0.6] * 4, 0.35, 40_000), noise))
  np.testing.assert_allclose(equal.mean(0), 0.25, atol=0.003)
  np.testing.assert_allclose(equal.std(0), 0.10, atol=0.01)
  tilted = np.asarray(gaussian(moments_with([0.60, 0.65, 0.60, 0.55], 0.35, 40_000), noise))
  np.testing.assert_allclose(tilted.mean(0), [0.250, 0.274, 0.249, 0.227], atol=0.003)
  np.testing.assert_allclose(tilted.std(0), 0.10, atol=0.02)
  random = np.asarray(jitter(moments_with([0.6] * 4, 0.35, 40_000), noise))
  np.testing.assert_allclose(random.std(0), equal.std(0), rtol=1e-4)


def test_simplex_draws_evenly_from_all_weights(make_responses):
  noise = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 3, 2)), jnp.float32)
  moments = ResponseMoments(*(jnp.ones((4000, 3, 2)) for _ in range(4)))
  alpha = np.asarray(ALPHAS["simplex"](moments, noise))
  np.testing.assert_allclose(alpha.mean(0), 1 / 3, atol=0.02)
  np.testing.assert_allclose(alpha.var(0), 1 / 18, atol=0.005)  # of Dirichlet(1, 1, 1)
  # Each weight exceeds x with probability (1 - x)^2.
  np.testing.assert_allclose((alpha > 0.5).mean(0), 0.25, atol=0.03)
