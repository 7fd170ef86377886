"""What changes the weights of any alpha function: all of it multiplies, and keeps the sum over contexts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective.alpha import AlphaFn
from amopo_jax.types import Alpha, Noise, ResponseMoments

_LEAST_LOSS = 1e-6
"""Nats; a term that is learned to the last bit has no infinite weight."""


def by_turn(alpha: Alpha, wanted: Float[Array, "B K"]) -> Alpha:
  """Weights of a dialogue's turn: `α_bk wanted_bk / Σ_j α_bj wanted_bj`, with the row sums that α had.

  Args:
    alpha: of any alpha function.
    wanted: how much each context matters to the turn, ≥ 0, in no row all 0.
  """
  return _weigh_again(alpha, wanted)


def by_variance(alpha_fn: AlphaFn, log_variances: Float[Array, " K"]) -> AlphaFn:
  """Weights times what is learned of each context: `α_bk exp(−s_k) / Σ_j α_bj exp(−s_j)`, see `uncertainty`.

  Args:
    alpha_fn: any.
    log_variances: s; may be traced.
  """

  def varied(moments: ResponseMoments, noise: Noise) -> Alpha:
    alpha = alpha_fn(moments, noise)
    precision = jnp.exp(jnp.min(log_variances) - log_variances)  # at most 1
    return _weigh_again(alpha, jnp.broadcast_to(precision, alpha.shape))

  return varied


def by_loss(alpha: Alpha, losses: Float[Array, "B K"], power: float) -> Alpha:
  """Weights that know the losses: `α_bk l_bk^p / Σ_j α_bj l_bj^p`, with the row sums that α had.

  Uncertainty weighting (arXiv 1705.07115) divides the loss of a task by a learned variance and adds that one's
  logarithm; the variance that is best is the loss itself (arXiv 2408.07985). p = −1 does so pair by pair, with the
  normalisation that α has: it favours what is learned already.

  Args:
    alpha: of any alpha function.
    losses: of the terms, nats, ≥ 0; no gradient flows through them.
    power: p.
  """
  return _weigh_again(alpha, jnp.power(jnp.maximum(jax.lax.stop_gradient(losses), _LEAST_LOSS), power))


def by_gap(alpha: Alpha, score_gap: Float[Array, "B K"], power: float) -> Alpha:
  """Weights that know how far apart the annotators saw the responses: `α_bk |gap_bk|^p / Σ_j α_bj |gap_bj|^p`.

  Few annotators err by the whole scale, many by a step of it, so that a wide gap is a safer label than a narrow one.

  Args:
    alpha: of any alpha function.
    score_gap: of the pair in each context, in [-1, 1]; 1 for a context without a dimension.
    power: p, ≥ 0; ties have no weight if p > 0, and a row of nothing else has none at all.
  """
  return _weigh_again(alpha, jnp.power(jnp.abs(score_gap), power))


def _weigh_again(alpha: Alpha, factor: Float[Array, "B K"]) -> Alpha:
  weighed = alpha * factor
  least = jnp.finfo(weighed.dtype).tiny  # a context of vanishing weight may be all that is left
  return weighed * (jnp.sum(alpha, axis=-1, keepdims=True) / jnp.maximum(jnp.sum(weighed, -1, keepdims=True), least))
