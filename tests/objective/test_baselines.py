"""baselines.py: each loss against its formula on the tokens, its gradient, and the pattern for a new one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.objective import (
  BASELINES,
  make_amopo,
  make_cpo,
  make_orpo,
  make_rrhf,
  make_sft,
  make_sft_both,
  make_simpo,
  make_slic,
  margins,
  mean_logps,
  uniform,
  uniform_objective,
)
from amopo_jax.types import PairInfo, ResponseMoments


@pytest.fixture(params=[(1, 1), (4, 3), (3, 8)], ids=str)
def case(request, make_responses, make_pairs, make_noise):
  size = (0, *request.param)
  return make_responses(*size), make_noise(*size), make_pairs(*size)


def test_sft_is_the_mean_of_the_means(case):
  responses, noise, info = case
  loss, aux = make_sft()(responses.moments(), noise, info)
  np.testing.assert_allclose(loss, -np.mean(responses.mean_logps[..., 0]), rtol=1e-6)
  np.testing.assert_allclose(aux.losses, -responses.mean_logps[..., 0], rtol=1e-6)


def test_sft_of_both_is_the_mean_over_both(case):
  responses, noise, info = case
  loss, aux = make_sft_both()(responses.moments(), noise, info)
  np.testing.assert_allclose(loss, -np.mean(responses.mean_logps), rtol=1e-6)
  np.testing.assert_allclose(aux.losses, -np.mean(responses.mean_logps, axis=-1), rtol=1e-6)


def test_sft_reports_rewards_of_the_beta_it_is_given(case):
  responses, noise, info = case
  one, plain = make_sft()(responses.moments(), noise, info)
  two, scaled = make_sft(beta=0.8)(responses.moments(), noise, info)
  assert float(one) == float(two)
  np.testing.assert_allclose(scaled.rewards, 0.8 * plain.rewards, rtol=1e-6)


def test_simpo_agrees_with_the_formula(case):
  responses, noise, info = case
  mean = responses.mean_logps
  expected = -np.log(1 / (1 + np.exp(-(0.8 * (mean[..., 0] - mean[..., 1]) - 1.5))))
  loss, aux = make_simpo(beta=0.8, target_margin=1.5)(responses.moments(), noise, info)
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)
  np.testing.assert_allclose(aux.losses, expected, rtol=1e-6, atol=1e-6)


def test_simpo_is_amopo_with_uniform_weights(case):
  responses, noise, info = case
  recipe = dict(beta=0.8, target_margin=1.5)
  simpo, amopo = make_simpo(**recipe), make_amopo(alpha_fn=uniform, **recipe)
  for ours, theirs in zip(
    jax.tree.leaves(simpo(responses.moments(), noise, info)),
    jax.tree.leaves(amopo(responses.moments(), noise, info)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


def odds(mean):
  return mean - np.log(1 - np.exp(mean))


ORACLES = {
  "orpo": (
    make_orpo(ratio_weight=0.3),
    lambda mean, _: -mean[..., 0] - 0.3 * log_sigmoid(odds(mean[..., 0]) - odds(mean[..., 1])),
  ),
  "cpo": (
    make_cpo(beta=0.2, sft_weight=0.7),
    lambda mean, total: -log_sigmoid(0.2 * (total[..., 0] - total[..., 1])) - 0.7 * mean[..., 0],
  ),
  "slic": (
    make_slic(beta=0.5, target_margin=1.5, sft_weight=0.1),
    lambda mean, total: np.maximum(0, 1.5 - 0.5 * (total[..., 0] - total[..., 1])) - 0.1 * mean[..., 0],
  ),
  "rrhf": (
    make_rrhf(sft_weight=0.4),
    lambda mean, _: np.maximum(0, mean[..., 1] - mean[..., 0]) - 0.4 * mean[..., 0],
  ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_losses_agree_with_their_formula_on_the_tokens(case, name):
  responses, noise, info = case
  objective, formula = ORACLES[name]
  expected = formula(responses.mean_logps, responses.each(np.sum))
  loss, aux = objective(responses.moments(), noise, info)
  np.testing.assert_allclose(aux.losses, expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)


def test_odds_of_a_certain_response_are_finite_and_so_is_their_gradient():
  moments = ResponseMoments(*(jnp.full((1, 1, 2), value) for value in (4.0, 0.0, 4.0, 4.0)))
  info = PairInfo(jnp.ones((1, 1), bool), jnp.ones((1, 1)), jnp.ones(1))
  loss = lambda sums: make_orpo(ratio_weight=1.0)(moments._replace(sum_logp=sums), jnp.zeros((1, 1, 2)), info)[0]
  assert np.isfinite(loss(moments.sum_logp))
  assert np.isfinite(jax.grad(loss)(moments.sum_logp)).all()


ALL = {
  "sft": make_sft(),
  "sft_both": make_sft_both(),
  "simpo": make_simpo(beta=0.8, target_margin=1.5),
  **{n: one for n, (one, _) in ORACLES.items()},
}


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_gradient_agrees_with_finite_differences(
  objective, make_responses, make_pairs, make_noise, central_differences
):
  moments = make_responses(1, 2, 3).moments(np.float64)
  noise, info = make_noise(1, 2, 3, np.float64), make_pairs(1, 2, 3, dtype=np.float64)

  def loss(sum_logp):
    return objective(moments._replace(sum_logp=sum_logp), noise, info)[0]

  numeric = central_differences(loss, moments.sum_logp)
  np.testing.assert_allclose(jax.grad(loss)(moments.sum_logp), numeric, rtol=1e-6, atol=1e-10)


def test_empty_places_leave_no_trace(make_responses, make_pairs, make_noise):
  moments, info = make_responses(2, 3, 2, empty=(1,)).moments(), make_pairs(2, 3, 2, empty=(1,))
  real = np.array([0, 2])
  some = ResponseMoments(*(field[real] for field in moments)), make_noise(2, 2, 2), make_pairs(2, 2, 2)
  for objective in ALL.values():
    loss, aux = objective(moments, make_noise(2, 3, 2), info)
    np.testing.assert_allclose(loss, objective(*some)[0], rtol=1e-6)
    assert all(np.all(np.asarray(field[1]) == 0.0) for field in aux)


def test_a_new_baseline_is_its_losses(case):
  """The pattern of the module's docstring."""
  responses, noise, info = case

  def make_hinge(*, delta: float):
    def losses(moments, pair_info):
      return jax.nn.relu(delta - margins(mean_logps(moments)))

    return uniform_objective(losses, beta=1.0)

  mean = responses.mean_logps
  expected = np.maximum(0, 1.0 - (mean[..., 0] - mean[..., 1])).mean()
  loss, _ = make_hinge(delta=1.0)(responses.moments(), noise, info)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert jnp.shape(loss) == ()


def test_makers_are_found_by_name():
  assert list(BASELINES) == list(ALL)
  assert BASELINES["slic"] is make_slic
