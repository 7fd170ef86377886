"""reference.py: each loss against its formula on the tokens, and its gradient."""

import jax
import numpy as np
import pytest

from amopo_jax.objective import (
  REFERENCED,
  fixed,
  make_dpo,
  make_ipo,
  make_kto,
  make_lambda_dpo,
  make_modpo,
  make_r_dpo,
  simplex,
)
from amopo_jax.types import InputError


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def kto(ratio, _):
  base = np.maximum(ratio.mean(-1), 0)
  chosen, rejected = sigmoid(0.3 * (ratio[..., 0] - base)), sigmoid(0.3 * (base - ratio[..., 1]))
  return ((1 - chosen) + (1 - rejected)) / 2


ORACLES = {
  "dpo": (make_dpo(beta=0.3), lambda ratio, _: -np.log(sigmoid(0.3 * (ratio[..., 0] - ratio[..., 1])))),
  "ipo": (
    make_ipo(beta=0.4),
    lambda ratio, n: (ratio[..., 0] / n[..., 0] - ratio[..., 1] / n[..., 1] - 1 / 0.8) ** 2,
  ),
  "kto": (make_kto(beta=0.3), kto),
  "r_dpo": (
    make_r_dpo(beta=0.3, length_weight=0.05),
    lambda ratio, n: -np.log(sigmoid(0.3 * (ratio[..., 0] - ratio[..., 1]) + 0.05 * (n[..., 0] - n[..., 1]))),
  ),
}


def referenced(responses, info, seed=0):
  """The pairs with the sums of some other policy."""
  dtype = info.weight.dtype
  total = np.asarray(responses.moments(dtype).sum_logp)  # as the objective is given them: rounded sums of tokens
  other = np.where(total == 0, 0, total + np.random.default_rng(seed).normal(size=total.shape)).astype(dtype)
  return info._replace(reference=jax.numpy.asarray(other)), total.astype(np.float64) - other.astype(np.float64)


@pytest.fixture(params=[(1, 1), (4, 3), (3, 8)], ids=str)
def case(request, make_responses, make_pairs, make_noise):
  size = (0, *request.param)
  responses = make_responses(*size)
  return responses, make_noise(*size), *referenced(responses, make_pairs(*size))


@pytest.mark.parametrize("name", ORACLES)
def test_losses_agree_with_their_formula_on_the_tokens(case, name):
  responses, noise, info, ratio = case
  objective, formula = ORACLES[name]
  expected = formula(ratio, responses.each(len))
  loss, aux = objective(responses.moments(), noise, info)
  np.testing.assert_allclose(aux.losses, expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("name", ["dpo", "ipo", "r_dpo"])
def test_gradient_agrees_with_finite_differences(name, make_responses, make_pairs, make_noise, central_differences):
  responses = make_responses(1, 2, 3)
  moments, noise = responses.moments(np.float64), make_noise(1, 2, 3, np.float64)
  info, _ = referenced(responses, make_pairs(1, 2, 3, dtype=np.float64))

  def loss(sum_logp):
    return ORACLES[name][0](moments._replace(sum_logp=sum_logp), noise, info)[0]

  numeric = central_differences(loss, moments.sum_logp)
  np.testing.assert_allclose(jax.grad(loss)(moments.sum_logp), numeric, rtol=1e-6, atol=1e-10)


def test_where_the_policy_is_its_reference_dpo_is_log_two(make_responses, make_pairs, make_noise):
  moments = make_responses(2, 3, 2).moments()
  info = make_pairs(2, 3, 2)._replace(reference=moments.sum_logp)
  np.testing.assert_allclose(make_dpo(beta=0.1)(moments, make_noise(2, 3, 2), info)[0], np.log(2), rtol=1e-6)


def test_r_dpo_learns_more_from_a_pair_whose_chosen_response_is_the_shorter(make_responses, make_pairs, make_noise):
  moments = make_responses(0, 2, 1).moments()
  moments = moments._replace(length=jax.numpy.array([[[4.0, 9.0]], [[9.0, 4.0]]]))
  info = make_pairs(0, 2, 1)._replace(weight=jax.numpy.full(2, 0.5), reference=moments.sum_logp)
  objective = make_r_dpo(beta=0.3, length_weight=0.05)
  pull = jax.grad(lambda sums: objective(moments._replace(sum_logp=sums), make_noise(0, 2, 1), info)[0])
  strength = np.abs(np.asarray(pull(moments.sum_logp)))
  assert np.all(strength[0] > strength[1])


def test_empty_places_leave_no_trace(make_responses, make_pairs, make_noise):
  responses = make_responses(2, 3, 2, empty=(1,))
  info, _ = referenced(responses, make_pairs(2, 3, 2, empty=(1,)))
  for objective, _ in ORACLES.values():
    loss, aux = objective(responses.moments(), make_noise(2, 3, 2), info)
    assert np.isfinite(loss)
    assert all(np.all(np.asarray(field[1]) == 0.0) for field in aux)


def test_pairs_without_a_reference_are_an_error(make_responses, make_pairs, make_noise):
  with pytest.raises(ValueError, match="no reference log-probabilities"):
    make_dpo(beta=0.1)(make_responses(0, 1, 1).moments(), make_noise(0, 1, 1), make_pairs(0, 1, 1))


def weighted_terms(ratio, gap, weight, term):
  """Mean over pairs of the weighted mean over the contexts that order the pair."""
  found = np.zeros(len(gap))
  for b, row in enumerate(gap):
    counted = [(weight[b][k], term(ratio[b, k, 0] - ratio[b, k, 1], b, k)) for k in range(len(row)) if row[k] != 0]
    found[b] = sum(w * t for w, t in counted) / sum(w for w, _ in counted) if counted else 0.0
  return found.mean()


def test_lambda_dpo_weighs_the_dpo_of_every_dimension(case):
  responses, noise, info, ratio = case
  gap = np.asarray(info.score_gap, np.float64)
  lambdas = np.asarray(simplex(responses.moments(), noise), np.float64)
  expected = weighted_terms(ratio, gap, lambdas, lambda ahead, b, k: -np.log(sigmoid(np.sign(gap[b, k]) * 0.3 * ahead)))
  objective = make_lambda_dpo(beta=0.3, alpha_fn=simplex)
  np.testing.assert_allclose(objective(responses.moments(), noise, info)[0], expected, rtol=1e-6)


def test_modpo_demands_more_where_the_other_dimensions_disagree(case):
  responses, noise, info, ratio = case
  gap = np.asarray(info.score_gap, np.float64)
  given = np.arange(1.0, gap.shape[1] + 1)
  share = given / given.sum()

  def term(ahead, b, k):
    others = sum(share[j] * 1.5 * gap[b, j] for j in range(len(share)) if j != k)
    return np.logaddexp(0, -np.sign(gap[b, k]) * (0.3 * ahead - others) / share[k])

  expected = weighted_terms(ratio, gap, np.ones_like(gap), term)
  objective = make_modpo(beta=0.3, weights=tuple(given), gap_margin=1.5)
  np.testing.assert_allclose(objective(responses.moments(), noise, info)[0], expected, rtol=1e-6)


def test_modpo_of_one_dimension_is_dpo(make_responses, make_pairs, make_noise):
  responses, noise = make_responses(3, 5, 1), make_noise(3, 5, 1)
  info, _ = referenced(responses, make_pairs(3, 5, 1))
  info = info._replace(score_gap=np.full((5, 1), 0.25, np.float32))
  found = make_modpo(beta=0.3, weights=(7.0,), gap_margin=2.0)(responses.moments(), noise, info)[0]
  np.testing.assert_allclose(found, make_dpo(beta=0.3)(responses.moments(), noise, info)[0], rtol=1e-6)


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (1.0, float("nan")), (-1.0, 2.0)])
def test_modpo_refuses_weights_that_are_not_positive(weights):
  with pytest.raises(InputError, match=r"modpo: weights .* one per context"):
    make_modpo(beta=0.3, weights=weights, gap_margin=1.0)


def test_modpo_refuses_another_number_of_contexts(make_responses, make_pairs, make_noise):
  with pytest.raises(InputError, match="modpo: 3 weights for 2 contexts"):
    make_modpo(beta=0.3, weights=(1.0, 1.0, 1.0), gap_margin=1.0)(
      make_responses(0, 1, 2).moments(), make_noise(0, 1, 2), make_pairs(0, 1, 2)
    )


def test_lambda_dpo_with_fixed_weights_draws_nothing(case):
  responses, noise, info, _ = case
  objective = make_lambda_dpo(beta=0.3, alpha_fn=fixed([1.0] * noise.shape[1]))
  np.testing.assert_array_equal(
    objective(responses.moments(), noise, info)[0], objective(responses.moments(), 0 * noise, info)[0]
  )


def test_makers_are_found_by_name():
  assert list(REFERENCED) == [*ORACLES, "lambda_dpo", "modpo"]
