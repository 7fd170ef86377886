"""preference.py: rewards, margins, Bradley-Terry terms, and the tie policies case by case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import (
  TIE_POLICIES,
  follow_dimension,
  keep,
  margins,
  mask_equal,
  mask_ties,
  preference_losses,
  rewards,
  sft_losses,
  target_margins,
)
from amopo_jax.types import PairInfo


def pair_info_of(gaps: list[float]) -> PairInfo:
  """One pair whose dimensions have these score gaps."""
  gap = np.array([gaps], np.float32)
  return PairInfo(jnp.asarray(gap > 0), jnp.asarray(gap), jnp.ones(1))


def test_rewards_are_beta_times_the_mean(make_responses):
  responses = make_responses(0, 3, 4)
  got = rewards(responses.moments(), 0.8)
  np.testing.assert_allclose(got, 0.8 * responses.mean_logps, rtol=1e-6)


def test_margins_are_chosen_minus_rejected():
  values = jnp.array([[[-1.0, -3.0], [-2.5, -0.5]]])
  np.testing.assert_array_equal(margins(values), [[2.0, -2.0]])


def test_sft_losses_are_of_the_chosen(responses_of):
  moments = responses_of([[[np.array([-1.0, -3.0]), np.array([-9.0])]]]).moments()
  np.testing.assert_allclose(sft_losses(moments), [[2.0]])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_losses_agree_with_the_formula(gamma):
  margin = np.linspace(-30, 30, 61)[None]
  expected = -np.log(1 / (1 + np.exp(-(margin - gamma))))
  got = preference_losses(jnp.asarray(margin, jnp.float32), gamma)
  np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-12)


def test_losses_survive_extreme_margins():
  margin = jnp.array([[1e4, -1e4, 0.0]])
  np.testing.assert_allclose(preference_losses(margin, 0.0), [[0.0, 1e4, np.log(2)]], rtol=1e-6)
  slope = jax.grad(lambda m: jnp.sum(preference_losses(m, 0.0)))(margin)
  np.testing.assert_allclose(slope, [[0.0, -1.0, -0.5]], atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.floats(-20, 20), st.floats(0, 5), st.floats(-5, 5))
def test_only_the_distance_to_the_target_matters(margin, gamma, shift):
  here = preference_losses(jnp.array([[margin]], jnp.float32), gamma)
  there = preference_losses(jnp.array([[margin + shift]], jnp.float32), gamma + shift)
  np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


GAPS = [1.0, 0.25, 0.0, -0.5]


@pytest.mark.parametrize(
  "policy, sign, counts",
  [
    (keep, [1, 1, 1, 1], [1, 1, 1, 1]),
    (mask_ties, [1, 1, 1, 1], [1, 1, 0, 0]),
    (follow_dimension, [1, 1, 1, -1], [1, 1, 0, 1]),
    (mask_equal, [1, 1, 1, 1], [1, 1, 0, 1]),
  ],
)
def test_tie_policy(policy, sign, counts):
  order = policy(pair_info_of(GAPS))
  is_counted = np.array([counts]) > 0
  np.testing.assert_array_equal(order.counts, [counts])
  np.testing.assert_array_equal(np.asarray(order.sign)[is_counted], np.array([sign])[is_counted])
  assert np.all(np.abs(order.sign) == 1)


def test_mask_ties_reads_is_ordered_and_not_the_gap():
  """A dimension may be ordered by the annotator although its numeric scores are equal."""
  info = PairInfo(jnp.array([[True, False]]), jnp.array([[0.0, 1.0]]), jnp.ones(1))
  np.testing.assert_array_equal(mask_ties(info).counts, [[1.0, 0.0]])


def test_policies_are_found_by_their_own_names():
  assert {name: policy.__name__ for name, policy in TIE_POLICIES.items()} == {
    name: name for name in ("keep", "mask_ties", "follow_dimension", "mask_equal")
  }


def test_target_margin_grows_with_the_gap():
  info = pair_info_of(GAPS)
  np.testing.assert_allclose(target_margins(2.0, 0.4, info), [[2.4, 2.1, 2.0, 2.2]], rtol=1e-6)
  np.testing.assert_array_equal(target_margins(2.0, 0.0, info), 2.0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(GAPS), min_size=3, max_size=3), st.integers(0, 99))
def test_following_the_dimension_does_not_ask_who_was_chosen(gaps, seed):
  """Swapping the two responses and their scores changes nothing."""
  margin = jnp.asarray(np.random.default_rng(seed).normal(size=(1, 3)), jnp.float32)
  order = follow_dimension(pair_info_of(gaps))
  swapped = follow_dimension(pair_info_of([-gap for gap in gaps]))
  losses = order.counts * preference_losses(order.sign * margin, 1.0)
  losses_swapped = swapped.counts * preference_losses(swapped.sign * -margin, 1.0)
  np.testing.assert_allclose(losses, losses_swapped)
