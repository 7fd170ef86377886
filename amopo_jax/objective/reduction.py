"""From unreduced losses to the loss: the one place where contexts, pairs and empty places are averaged.

Every objective ends here, so "sum or mean?" has one answer: Σ over contexts with α, mean over the pairs of
the whole step. The pairs' weights carry the mean's denominator, so a sum over micro-batches or devices of
this sum is the mean over the step, whatever the split.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective import preference
from amopo_jax.objective.moments import mean_logps
from amopo_jax.types import Alpha, Noise, PairInfo, ResponseMoments, Scalar


class Aux(NamedTuple):
  """What an objective reports beside the loss; exact zeros at empty places, so sums need no mask.

  Attributes:
    losses: unreduced losses, nats; 0 where the term does not count.
    alpha: weights as they took part: over the terms that count, 0 elsewhere.
    rewards: implicit rewards.
    margins: rewards of the chosen minus rewards of the rejected response, whatever order the loss followed.
    counts: 1 for a term of the loss, 0 for a dropped term or an empty place.
    logps: length-averaged log-probabilities, nats per token.
  """

  losses: Float[Array, "B K"]
  alpha: Float[Array, "B K"]
  rewards: Float[Array, "B K P"]
  margins: Float[Array, "B K"]
  counts: Float[Array, "B K"]
  logps: Float[Array, "B K P"]


Objective = Callable[[ResponseMoments, Noise, PairInfo], tuple[Scalar, Aux]]
"""The seam: deterministic, any function of this shape can be handed to the train step."""


def reduce_losses(
  losses: Float[Array, "B K"],
  alpha: Alpha,
  counts: Float[Array, "B K"],
  *,
  moments: ResponseMoments,
  pair_info: PairInfo,
  beta: float | Scalar,
) -> tuple[Scalar, Aux]:
  """Weighs the terms that count over contexts, and averages over pairs.

  A pair none of whose terms count adds nothing but stays in the mean's denominator: the value does not depend
  on how a step is split. A context that is not in the batch does not count. No gradient flows through alpha,
  whoever computed it.

      loss = Σ_b weight_b Σ_k α'_bk losses_bk,    α'_bk = α_bk counts_bk · (Σ_k α_bk / Σ_k α_bk counts_bk)

  Args:
    losses: unreduced losses; finite, also at empty places.
    alpha: weights over contexts.
    counts: 1 for a term of the loss, 0 for one that is dropped.
    moments: sufficient statistics, for the report; of a context that is not in the batch the lengths are 0.
    pair_info: the annotations; `weight` is 1 / (pairs of the whole step), 0 for an empty place.
    beta: reward per nat, for the report.

  Returns:
    The loss in nats, and the report.

  Source: docs/method.md, "The objective"; deviations 3, 4, 8.
  """
  weight = jnp.asarray(pair_info.weight)
  is_there = (weight[:, None] > 0) & jnp.any(moments.length > 0, axis=-1)
  counts = jnp.where(is_there, counts, 0.0)
  alpha = _renormalize(jax.lax.stop_gradient(alpha), counts)
  losses = jnp.where(counts > 0, losses, 0.0)
  loss = jnp.sum(weight * jnp.sum(alpha * losses, axis=-1))
  rewards = preference.rewards(moments, beta)
  return loss, Aux(losses, alpha, rewards, preference.margins(rewards), counts, mean_logps(moments))


def _renormalize(alpha: Float[Array, "B K"], counts: Float[Array, "B K"]) -> Float[Array, "B K"]:
  """Alpha over the terms that count with the row sums it had; 0 where none counts, unchanged where all do."""
  counted = jnp.sum(alpha * counts, axis=-1, keepdims=True)
  factor = jnp.sum(alpha, axis=-1, keepdims=True) / jnp.where(counted > 0, counted, 1.0)
  return alpha * counts * factor
