"""reduction.py: what counts, what is averaged over what, and that empty places leave no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amopo_jax.objective import gaussian_flat, reduce_losses
from amopo_jax.types import ResponseMoments


def arrays(seed: int, batch: int = 4, contexts: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Losses, alpha with rows that sum to 1, and counts in which pair 0 has none and pair 1 has all."""
  rng = np.random.default_rng(seed)
  counts = rng.integers(0, 2, size=(batch, contexts))
  counts[0], counts[1] = 0, 1
  alpha = rng.dirichlet(np.ones(contexts), size=batch)
  return tuple(x.astype(np.float32) for x in (rng.gamma(1.0, size=(batch, contexts)), alpha, counts))


def reduced(losses, alpha, counts, moments, pair_info):
  args = (jnp.asarray(x) for x in (losses, alpha, counts))
  return reduce_losses(*args, moments=moments, pair_info=pair_info, beta=0.8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mean_over_pairs_of_the_weighted_terms_that_count(seed, make_responses, make_pairs):
  losses, alpha, counts = arrays(seed)
  expected = 0.0
  for b in range(4):
    counted = [k for k in range(3) if counts[b, k] == 1]
    total = sum(alpha[b, k] for k in counted)
    expected += sum(alpha[b, k] / total * losses[b, k] for k in counted) / 4
  loss, aux = reduced(losses, alpha, counts, make_responses(seed, 4, 3).moments(), make_pairs(seed, 4, 3))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_array_equal(aux.counts, counts)
  np.testing.assert_array_equal(aux.losses, losses * counts)
  np.testing.assert_allclose(np.sum(aux.alpha, -1), counts.any(-1), rtol=1e-6)


def test_alpha_is_untouched_where_everything_counts(make_responses, make_pairs):
  losses, alpha, _ = arrays(0)
  _, aux = reduced(losses, alpha, np.ones_like(alpha), make_responses(0, 4, 3).moments(), make_pairs(0, 4, 3))
  np.testing.assert_array_equal(aux.alpha, alpha)


def test_rows_that_do_not_sum_to_one_keep_their_sum(make_responses, make_pairs, make_noise):
  """gaussian_flat with a tie policy: a pair's share of the batch stays its share."""
  losses, _, counts = arrays(1)
  moments = make_responses(1, 4, 3).moments()
  alpha = gaussian_flat(moments, make_noise(1, 4, 3))
  _, aux = reduced(losses, alpha, counts, moments, make_pairs(1, 4, 3))
  np.testing.assert_allclose(np.sum(aux.alpha, -1), np.asarray(alpha).sum(-1) * counts.any(-1), rtol=1e-6)


def test_weight_zero_on_all_that_counts_is_finite(make_responses, make_pairs):
  losses, alpha, counts = np.ones((1, 2)), np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
  args = (x.astype(np.float32) for x in (losses, alpha, counts))
  loss, aux = reduced(*args, make_responses(0, 1, 2).moments(), make_pairs(0, 1, 2))
  assert float(loss) == 0.0
  np.testing.assert_array_equal(aux.alpha, 0.0)


def test_empty_places_report_exact_zeros(make_responses, make_pairs):
  losses, alpha, counts = arrays(2)
  loss, aux = reduced(
    losses, alpha, counts, make_responses(2, 4, 3, empty=(1, 3)).moments(), make_pairs(2, 4, 3, empty=(1, 3))
  )
  assert np.isfinite(loss)
  for field in aux:
    np.testing.assert_array_equal(field[np.array([1, 3])], 0.0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 3))
def test_micro_batches_add_up(seed, cut, make_responses, make_pairs):
  losses, alpha, counts = arrays(seed)
  moments, info = make_responses(seed, 4, 3, empty=(2,)).moments(), make_pairs(seed, 4, 3, empty=(2,))
  whole, _ = reduced(losses, alpha, counts, moments, info)
  parts = []
  for part in (slice(None, cut), slice(cut, None)):
    some = ResponseMoments(*(field[part] for field in moments)), jax.tree.map(lambda x, part=part: x[part], info)
    parts.append(reduced(losses[part], alpha[part], counts[part], *some)[0])
  np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)


def test_no_gradient_through_alpha_whoever_made_it(make_responses, make_pairs):
  losses, alpha, counts = map(jnp.asarray, arrays(3))
  moments, info = make_responses(3, 4, 3).moments(), make_pairs(3, 4, 3)

  def loss(alpha):
    return reduce_losses(losses, alpha, counts, moments=moments, pair_info=info, beta=0.8)[0]

  np.testing.assert_array_equal(jax.grad(loss)(alpha), 0.0)


def test_report_of_rewards(make_responses, make_pairs):
  responses = make_responses(4, 4, 3)
  _, aux = reduced(*arrays(4), responses.moments(), make_pairs(4, 4, 3))
  mean = responses.mean_logps
  np.testing.assert_allclose(aux.logps, mean, rtol=1e-6)
  np.testing.assert_allclose(aux.rewards, 0.8 * mean, rtol=1e-6)
  np.testing.assert_allclose(aux.margins, 0.8 * (mean[..., 0] - mean[..., 1]), rtol=1e-5, atol=1e-6)


def test_shapes_are_checked(make_responses, make_pairs):
  losses, alpha, counts = arrays(5)
  with pytest.raises(Exception, match="counts"):
    reduced(losses, alpha, counts[:, :2], make_responses(5, 4, 3).moments(), make_pairs(5, 4, 3))
