"""Weights over contexts that are learned beside the policy: uncertainty weighting.

The terms of each context have an unknown variance exp(s_k), and s follows the gradient of

    Σ_k exp(−s_k) l_k + s_k

with the mean loss l_k of a step's terms: a context whose terms stay large is taken for noisy and counts less. The
policy sees shares of exp(−s_k), so that weights still sum to 1 and no learning rate has to change.

Source: arXiv 1705.07115, equation 7, in logarithms of the variance as its section 3.2 proposes. Deviations: the shares,
and a plain gradient step of its own for s instead of the policy's optimizer.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective.reduction import Objective

LogVariances = Float[Array, " K"]
"""s, a number per context; 0 where nothing is known."""


class Uncertainty(NamedTuple):
  """Learned weights of contexts.

  Attributes:
    objective_at: log variances, which may be traced -> the objective with the weights that they give.
    rate: of the gradient step, > 0; near s = log l it closes this share of the distance.
  """

  objective_at: Callable[[LogVariances], Objective]
  rate: float


def descend(
  log_variances: LogVariances, losses: Float[Array, " K"], counts: Float[Array, " K"], rate: float
) -> LogVariances:
  """One step of s along −(1 − exp(−s_k) l_k); a context without a term stays where it is.

  Args:
    log_variances: s.
    losses: sums of the step's unweighted losses, nats.
    counts: how many terms those are.
    rate: of the step.
  """
  means = losses / jnp.maximum(counts, 1.0)
  return log_variances - rate * jnp.where(counts > 0, 1.0 - jnp.exp(-log_variances) * means, 0.0)
