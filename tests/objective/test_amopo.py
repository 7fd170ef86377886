"""amopo.py: the loss against docs/method.md term by term, its gradient against finite differences, its
symmetries."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import (
  ALPHAS,
  TIE_POLICIES,
  gaussian,
  gaussian_flat,
  keep,
  make_amopo,
  make_simpo,
  softmax_mean,
  uniform,
)
from amopo_jax.types import PairInfo, ResponseMoments

seeds = st.integers(0, 10_000)
RECIPE = dict(beta=0.8, target_margin=2.0)


def nll(x: float) -> float:
  """−log σ(x)."""
  return -math.log(1 / (1 + math.exp(-x)))


def terms(policy: str, gap: np.ndarray) -> list[tuple[int, int]]:
  """(context, sign) of every term that counts for a pair, by the rules of docs/method.md, "Ties"."""
  if policy == "keep":
    return [(k, 1) for k in range(len(gap))]
  if policy == "mask_ties":
    return [(k, 1) for k in range(len(gap)) if gap[k] > 0]
  if policy == "mask_equal":
    return [(k, 1) for k in range(len(gap)) if gap[k] != 0]
  return [(k, 1 if gap[k] > 0 else -1) for k in range(len(gap)) if gap[k] != 0]


def oracle(responses, alpha, gaps, *, beta, target_margin, policy="keep", gap_margin=0.0, sft_weight=0.0) -> float:
  """L of docs/method.md with loops: a mean over pairs of weighted sums over contexts."""
  r, losses = beta * responses.mean_logps, []
  for b in range(len(gaps)):
    counted = terms(policy, gaps[b])
    total = sum(alpha[b, k] for k, _ in counted)
    pair = 0.0
    for k, sign in counted:
      gamma = target_margin + gap_margin * abs(gaps[b, k])
      pair += alpha[b, k] / total * nll(sign * (r[b, k, 0] - r[b, k, 1]) - gamma)
    losses.append(pair + sft_weight * np.mean([-r[b, k, 0] / beta for k in range(len(gaps[b]))]))
  return float(np.mean(losses))


def drawn_alpha(responses, noise) -> np.ndarray:
  """Softmax over contexts of the summed Gaussian draws, in float64."""
  scores = (responses.mean_probs + responses.std_probs * np.asarray(noise, np.float64)).sum(-1)
  return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


@pytest.mark.parametrize("contexts", range(1, 9))
@pytest.mark.parametrize("policy", TIE_POLICIES)
def test_agrees_with_the_formula(contexts, policy, make_responses, make_pairs, make_noise):
  size = (contexts, 5, contexts)
  responses, info, noise = make_responses(*size), make_pairs(*size), make_noise(*size)
  alpha, gaps = drawn_alpha(responses, noise), np.asarray(info.score_gap, np.float64)
  for gap_margin, sft_weight in itertools.product((0.0, 0.7), (0.0, 0.3)):
    extras = dict(gap_margin=gap_margin, sft_weight=sft_weight)
    objective = make_amopo(alpha_fn=gaussian, tie_policy=TIE_POLICIES[policy], **RECIPE, **extras)
    loss, _ = objective(responses.moments(), noise, info)
    np.testing.assert_allclose(loss, oracle(responses, alpha, gaps, policy=policy, **RECIPE, **extras), rtol=1e-5)


def without(responses, there: np.ndarray) -> ResponseMoments:
  """Their moments where only some contexts [B, K] are in the batch."""
  return ResponseMoments(*(field * jnp.asarray(there, field.dtype)[..., None] for field in responses.moments()))


@pytest.mark.parametrize("alpha_name", sorted(set(ALPHAS) - {"gaussian_flat"}))
def test_contexts_that_are_not_in_the_batch_are_as_if_there_were_none(
  alpha_name, make_responses, make_pairs, make_noise
):
  responses, info, noise = make_responses(3, 5, 4), make_pairs(3, 5, 4), make_noise(3, 5, 4)
  objective = make_amopo(alpha_fn=ALPHAS[alpha_name], tie_policy=TIE_POLICIES["keep"], sft_weight=0.3, **RECIPE)
  some = np.asarray([0, 2])
  loss, aux = objective(without(responses, np.isin(np.arange(4), some)[None].repeat(5, 0)), noise, info)
  part = lambda tree: jax.tree.map(lambda x: x if x is None or x.ndim == 1 else x[:, some], tree)
  expected, _ = objective(part(responses.moments()), noise[:, some], part(info))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_array_equal(np.asarray(aux.counts), np.isin(np.arange(4), some)[None].repeat(5, 0))


def test_single_contexts_that_are_drawn_evenly_have_the_uniform_loss_in_the_mean(
  make_responses, make_pairs, make_noise
):
  responses, info, noise = make_responses(4, 5, 3), make_pairs(4, 5, 3), make_noise(4, 5, 3)
  objective = make_amopo(alpha_fn=uniform, sft_weight=0.3, **RECIPE)
  singles = [objective(without(responses, np.eye(3)[[k] * 5]), noise, info)[0] for k in range(3)]
  np.testing.assert_allclose(np.mean(singles), objective(responses.moments(), noise, info)[0], rtol=1e-5)


def released_loss(responses, noise: np.ndarray, *, beta: float, gamma: float, ftx: float) -> float:
  """The released loss step by step: one softmax over 4·B draws, times the losses, plus SFT, `.mean()`."""
  batch, contexts = len(responses.tokens), len(responses.tokens[0])
  losses, draws, chosen_logps = [], [], []
  for k, b in itertools.product(range(contexts), range(batch)):
    chosen, rejected = responses.tokens[b][k]
    logits = (np.mean(chosen) - np.mean(rejected)) - gamma / beta
    losses.append(nll(beta * logits))
    probs = np.exp(chosen), np.exp(rejected)
    draws.append(sum(np.mean(p) + np.std(p, ddof=1) * noise[b, k, i] for i, p in enumerate(probs)))
    chosen_logps.append(np.mean(chosen))
  alpha = np.exp(draws) / np.sum(np.exp(draws))
  return float(np.mean(np.array(losses) * alpha + ftx * -np.mean(chosen_logps)))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_gaussian_flat_is_the_released_loss(batch, make_responses, make_pairs, make_noise):
  responses = make_responses(batch, batch, 4, min_length=2)
  noise, info = make_noise(batch, batch, 4), make_pairs(batch, batch, 4)
  objective = make_amopo(alpha_fn=gaussian_flat, sft_weight=0.1, **RECIPE)
  expected = released_loss(responses, np.asarray(noise), beta=0.8, gamma=2.0, ftx=0.1)
  np.testing.assert_allclose(objective(responses.moments(), noise, info)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_released_scale_is_a_quarter_per_pair(batch, make_responses, make_pairs, responses_of):
  """docs/method.md, deviation 4: 1/4, 1/8, 1/16 of Σ α·losses at B = 1, 2, 4, seen with equal pairs."""
  pair = make_responses(0, 1, 4).tokens
  moments, info = responses_of(pair * batch).moments(), make_pairs(0, batch, 4)
  silence = jnp.zeros((batch, 4, 2))
  flat, _ = make_amopo(alpha_fn=gaussian_flat, **RECIPE)(moments, silence, info)
  per_pair, _ = make_amopo(alpha_fn=gaussian, **RECIPE)(moments, silence, info)
  np.testing.assert_allclose(flat / per_pair, 1 / (4 * batch), rtol=1e-5)


def logit_moments(z: jax.Array) -> ResponseMoments:
  """Moments of responses whose tokens have log-probability log σ(z): [B K P token] → [B K P]."""
  logps = jax.nn.log_sigmoid(z)
  length = jnp.full(z.shape[:-1], float(z.shape[-1]), z.dtype)
  return ResponseMoments(length, logps.sum(-1), jnp.exp(logps).sum(-1), jnp.exp(2 * logps).sum(-1))


@pytest.mark.parametrize("name", ALPHAS)
@pytest.mark.parametrize("policy", TIE_POLICIES)
def test_gradient_agrees_with_finite_differences(name, policy, make_pairs, make_noise, central_differences):
  """Of the loss with α held at its value: the loss itself moves α too, and its gradient must not."""
  z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 4)))
  noise, info = make_noise(0, 2, 3, np.float64), make_pairs(0, 2, 3, dtype=np.float64)
  parts = dict(tie_policy=TIE_POLICIES[policy], gap_margin=0.5, sft_weight=0.2, **RECIPE)
  frozen = ALPHAS[name](logit_moments(z), noise)

  def loss(z, alpha_fn):
    return make_amopo(alpha_fn=alpha_fn, **parts)(logit_moments(z), noise, info)[0]

  numeric = central_differences(lambda z: loss(z, lambda moments, noise: frozen), z)
  np.testing.assert_allclose(jax.grad(loss)(z, ALPHAS[name]), numeric, rtol=1e-6, atol=1e-10)


def test_only_log_probabilities_carry_gradient(make_responses, make_pairs, make_noise):
  objective = make_amopo(alpha_fn=gaussian, **RECIPE)
  noise, info = make_noise(0, 2, 3), make_pairs(0, 2, 3)
  gradient = jax.grad(lambda m: objective(m, noise, info)[0])(make_responses(0, 2, 3).moments())
  np.testing.assert_array_equal(gradient.sum_p, 0.0)
  np.testing.assert_array_equal(gradient.sum_p2, 0.0)
  assert np.all(gradient.sum_logp[..., 0] < 0)
  assert np.all(gradient.sum_logp[..., 1] > 0)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, alpha_name=st.sampled_from(sorted(ALPHAS)))
def test_one_context_is_simpo(seed, alpha_name, make_responses, make_pairs, make_noise):
  moments, noise, info = make_responses(seed, 1, 1).moments(), make_noise(seed, 1, 1), make_pairs(seed, 1, 1)
  loss, _ = make_amopo(alpha_fn=ALPHAS[alpha_name], **RECIPE)(moments, noise, info)
  np.testing.assert_allclose(loss, make_simpo(**RECIPE)(moments, noise, info)[0], rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_zero_noise_is_the_deterministic_weight(seed, make_responses, make_pairs, make_noise):
  moments, info = make_responses(seed, 3, 4).moments(), make_pairs(seed, 3, 4)
  sampled, _ = make_amopo(alpha_fn=gaussian, **RECIPE)(moments, jnp.zeros((3, 4, 2)), info)
  plain, _ = make_amopo(alpha_fn=softmax_mean, **RECIPE)(moments, make_noise(seed, 3, 4), info)
  assert float(sampled) == float(plain)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, policy=st.sampled_from(sorted(TIE_POLICIES)))
def test_order_of_pairs_and_contexts_is_immaterial(seed, policy, make_responses, make_pairs, make_noise):
  moments, noise, info = make_responses(seed, 4, 3).moments(), make_noise(seed, 4, 3), make_pairs(seed, 4, 3)
  objective = make_amopo(alpha_fn=gaussian, tie_policy=TIE_POLICIES[policy], sft_weight=0.1, **RECIPE)
  rng = np.random.default_rng(seed)
  b, k = rng.permutation(4)[:, None], rng.permutation(3)[None]
  permuted = PairInfo(info.is_ordered[b, k], info.score_gap[b, k], info.weight[b[:, 0]])
  loss, _ = objective(ResponseMoments(*(field[b, k] for field in moments)), noise[b, k], permuted)
  np.testing.assert_allclose(loss, objective(moments, noise, info)[0], rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, cut=st.integers(1, 3), policy=st.sampled_from(sorted(TIE_POLICIES)))
def test_micro_batches_add_up(seed, cut, policy, make_responses, make_pairs, make_noise):
  moments, info = make_responses(seed, 4, 3, empty=(3,)).moments(), make_pairs(seed, 4, 3, empty=(3,))
  noise = make_noise(seed, 4, 3)
  objective = make_amopo(alpha_fn=gaussian, tie_policy=TIE_POLICIES[policy], sft_weight=0.1, **RECIPE)
  parts = []
  for part in (slice(None, cut), slice(cut, None)):
    some = ResponseMoments(*(field[part] for field in moments)), jax.tree.map(lambda x, part=part: x[part], info)
    parts.append(objective(some[0], noise[part], some[1])[0])
  np.testing.assert_allclose(sum(parts), objective(moments, noise, info)[0], rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, shift=st.floats(-3, 3))
def test_shifting_both_responses_changes_nothing(seed, shift, make_responses, make_pairs, make_noise):
  """The preference term sees differences only: why the chosen reward may fall (docs/method.md)."""
  moments, noise, info = make_responses(seed, 3, 2).moments(), make_noise(seed, 3, 2), make_pairs(seed, 3, 2)
  shifted = moments._replace(sum_logp=moments.sum_logp + shift * moments.length)
  objective = make_amopo(alpha_fn=gaussian, **RECIPE)
  np.testing.assert_allclose(objective(shifted, noise, info)[0], objective(moments, noise, info)[0], rtol=1e-4)


@pytest.mark.parametrize("policy", TIE_POLICIES)
@pytest.mark.parametrize("name", ALPHAS)
def test_empty_places_leave_no_trace(name, policy, make_responses, make_pairs, make_noise):
  moments, info = make_responses(6, 4, 3, empty=(0, 2)).moments(), make_pairs(6, 4, 3, empty=(0, 2))
  noise = make_noise(6, 4, 3)
  objective = make_amopo(
    alpha_fn=ALPHAS[name], tie_policy=TIE_POLICIES[policy], gap_margin=0.5, sft_weight=0.1, **RECIPE
  )
  (loss, aux), gradient = jax.value_and_grad(lambda m: objective(m, noise, info), has_aux=True)(moments)
  real = np.array([1, 3])
  some = ResponseMoments(*(f[real] for f in moments)), jax.tree.map(lambda x: x[real], info)
  np.testing.assert_allclose(loss, objective(some[0], noise[real], some[1])[0], rtol=1e-6)
  for field in (*aux, *gradient):
    assert np.all(np.isfinite(field))
    np.testing.assert_array_equal(field[np.array([0, 2])], 0.0)


def test_a_batch_of_empty_places_is_zero(make_responses, make_pairs, make_noise):
  moments, info = make_responses(0, 2, 3, empty=(0, 1)).moments(), make_pairs(0, 2, 3, empty=(0, 1))
  for alpha_fn in ALPHAS.values():
    objective = make_amopo(alpha_fn=alpha_fn, sft_weight=0.1, **RECIPE)
    loss, gradient = jax.value_and_grad(lambda m, f=objective: f(m, make_noise(0, 2, 3), info)[0])(moments)
    assert float(loss) == 0.0
    assert all(np.all(np.asarray(field) == 0.0) for field in gradient)


@pytest.mark.parametrize("chosen, rejected", [(-10.0, 0.0), (0.0, -10.0), (-10.0, -10.0)])
def test_extreme_responses(chosen, rejected, responses_of, make_pairs):
  """Sums of −1e4 nats over 1,000 tokens against certainty: the loss is that of the means."""
  moments = responses_of([[[np.full(1000, chosen), np.full(1000, rejected)]] * 2]).moments()
  objective = make_amopo(alpha_fn=gaussian, beta=100.0, target_margin=2.0)
  noise, info = jnp.ones((1, 2, 2)), make_pairs(0, 1, 2)
  loss, gradient = jax.value_and_grad(lambda m: objective(m, noise, info)[0])(moments)
  x = 100.0 * (chosen - rejected) - 2.0
  np.testing.assert_allclose(loss, max(-x, 0.0) + math.log1p(math.exp(-abs(x))), rtol=1e-6)
  assert all(np.all(np.isfinite(field)) for field in gradient)


def test_beta_and_target_margin_can_be_traced(make_responses, make_pairs, make_noise):
  moments, noise, info = make_responses(8, 3, 4).moments(), make_noise(8, 3, 4), make_pairs(8, 3, 4)
  betas, gammas = jnp.array([0.1, 0.8, 2.0]), jnp.array([0.0, 1.0, 2.0])

  @jax.jit
  def loss(beta, gamma):
    return make_amopo(alpha_fn=gaussian, beta=beta, target_margin=gamma)(moments, noise, info)[0]

  grid = jax.vmap(jax.vmap(loss, in_axes=(None, 0)), in_axes=(0, None))(betas, gammas)
  expected = [
    [make_amopo(alpha_fn=gaussian, beta=float(b), target_margin=float(g))(moments, noise, info)[0] for g in gammas]
    for b in betas
  ]
  np.testing.assert_allclose(grid, expected, rtol=1e-6)


def test_the_defaults_are_the_method(make_responses, make_pairs, make_noise):
  moments, noise, info = make_responses(9, 3, 4).moments(), make_noise(9, 3, 4), make_pairs(9, 3, 4)
  plain, aux = make_amopo(alpha_fn=uniform, **RECIPE)(moments, noise, info)
  said, _ = make_amopo(alpha_fn=uniform, tie_policy=keep, gap_margin=0.0, sft_weight=0.0, **RECIPE)(
    moments, noise, info
  )
  assert float(plain) == float(said)
  np.testing.assert_array_equal(aux.counts, 1.0)


@given(seeds)
@settings(deadline=None, max_examples=15)
def test_weights_per_turn_agree_with_the_formula(make_responses, make_pairs, make_noise, seed):
  responses, info = make_responses(seed, 3, 4), make_pairs(seed, 3, 4)
  draw = np.random.default_rng(seed)
  wanted = draw.choice([0.0, 1.0, 3.0], size=(3, 4))
  wanted[:, 3] = 1.0
  alpha = np.exp(draw.normal(size=(3, 4)))
  alpha /= alpha.sum(1, keepdims=True)
  objective = make_amopo(alpha_fn=lambda moments, noise: jnp.asarray(alpha), per_turn=True, **RECIPE)
  loss, aux = objective(responses.moments(), make_noise(seed, 3, 4), info._replace(wanted=jnp.asarray(wanted)))
  by_turn = np.array([[alpha[b, k] * wanted[b, k] for k in range(4)] for b in range(3)])
  by_turn /= by_turn.sum(1, keepdims=True)
  np.testing.assert_allclose(loss, oracle(responses, by_turn, np.asarray(info.score_gap), **RECIPE), rtol=2e-6)
  np.testing.assert_allclose(aux.alpha, by_turn, rtol=1e-5)


def test_a_turn_may_want_a_context_that_alpha_hardly_knows(make_responses, make_pairs, make_noise):
  responses, info = make_responses(0, 1, 2), make_pairs(0, 1, 2)
  objective = make_amopo(alpha_fn=lambda moments, noise: jnp.array([[1.0, 1e-30]]), per_turn=True, **RECIPE)
  wanted = jnp.array([[0.0, 1.0]])
  _, aux = objective(responses.moments(), make_noise(0, 1, 2), info._replace(wanted=wanted))
  np.testing.assert_allclose(aux.alpha, [[0.0, 1.0]], rtol=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, power=st.sampled_from([-1.0, 0.5, 2.0]), policy=st.sampled_from(sorted(TIE_POLICIES)))
def test_weights_by_loss_agree_with_the_formula(seed, power, policy, make_responses, make_pairs, make_noise):
  responses, info = make_responses(seed, 3, 4), make_pairs(seed, 3, 4)
  gaps, r = np.asarray(info.score_gap), 0.8 * responses.mean_logps
  alpha = np.zeros((3, 4))
  for b in range(3):
    for k, sign in terms(policy, gaps[b]):
      alpha[b, k] = 0.25 * nll(sign * (r[b, k, 0] - r[b, k, 1]) - 2.0) ** power
  alpha /= alpha.sum(1, keepdims=True)
  objective = make_amopo(alpha_fn=uniform, tie_policy=TIE_POLICIES[policy], loss_power=power, **RECIPE)
  loss, aux = objective(responses.moments(), make_noise(seed, 3, 4), info)
  np.testing.assert_allclose(aux.alpha, alpha, rtol=2e-5, atol=1e-7)
  np.testing.assert_allclose(loss, oracle(responses, alpha, gaps, policy=policy, **RECIPE), rtol=1e-5)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, power=st.sampled_from([0.5, 1.0, 2.0]), policy=st.sampled_from(sorted(TIE_POLICIES)))
def test_weights_by_gap_agree_with_the_formula(seed, power, policy, make_responses, make_pairs, make_noise):
  responses, info = make_responses(seed, 3, 4), make_pairs(seed, 3, 4)
  gaps = np.asarray(info.score_gap)
  alpha = np.zeros((3, 4))
  for b in range(3):
    for k, _ in terms(policy, gaps[b]):
      alpha[b, k] = 0.25 * abs(float(gaps[b, k])) ** power
    alpha[b] /= alpha[b].sum() or 1.0
  objective = make_amopo(alpha_fn=uniform, tie_policy=TIE_POLICIES[policy], gap_power=power, **RECIPE)
  loss, aux = objective(responses.moments(), make_noise(seed, 3, 4), info)
  np.testing.assert_allclose(aux.alpha, alpha, rtol=2e-5, atol=1e-7)
  np.testing.assert_allclose(loss, oracle(responses, alpha, gaps, policy=policy, **RECIPE), rtol=1e-5)


def test_losses_divided_by_themselves_have_the_gradient_of_their_logarithms(make_responses, make_pairs, make_noise):
  """Σ_k l_k / l_k over K terms, the weights constant: d loss = (mean of 1/l)^-1 · mean of d log l."""
  moments, noise, info = make_responses(1, 1, 3).moments(), make_noise(1, 1, 3), make_pairs(1, 1, 3)
  losses = lambda sums: make_amopo(alpha_fn=uniform, **RECIPE)(moments._replace(sum_logp=sums), noise, info)[1].losses
  weighted = make_amopo(alpha_fn=uniform, loss_power=-1.0, **RECIPE)
  ours = jax.grad(lambda sums: weighted(moments._replace(sum_logp=sums), noise, info)[0])(moments.sum_logp)
  logs = jax.grad(lambda sums: jnp.mean(jnp.log(losses(sums))))(moments.sum_logp)
  np.testing.assert_allclose(ours, logs / jnp.mean(1 / losses(moments.sum_logp)), rtol=1e-4)
