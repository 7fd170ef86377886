"""Per-token statistics of a response, from its sufficient statistics (`amopo_jax.types.ResponseMoments`).

Everything here is finite whatever comes in: an empty place (length 0) has statistics 0, and a response of one
token has no spread, where the released code computes NaN and stops (method.md, deviation 7).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.types import ResponseMoments


def mean_logps(moments: ResponseMoments) -> Float[Array, "B K P"]:
  """Length-averaged log-probability of each response: the mean, not the sum.

  The mean takes the length out of the reward, so that a longer response is not punished for its length
  (SimPO).

      mean_logps = (1/|y|) Σ_t l_t,    l_t = log π(y_t | x*_k, y_<t)

  Args:
    moments: sufficient statistics of the responses.

  Returns:
    Nats per token, ≤ 0; 0 for an empty place.

  Source: docs/method.md, "The objective": the implicit reward without β.
  """
  return _ratio(moments.sum_logp, moments.length)


def mean_probs(moments: ResponseMoments) -> Float[Array, "B K P"]:
  """Mean probability of a response's tokens: the centre μ from which α is drawn.

      mean_probs = (1/|y|) Σ_t p_t,    p_t = exp(l_t)

  Args:
    moments: sufficient statistics of the responses.

  Returns:
    A probability in [0, 1]; 0 for an empty place.

  Source: docs/method.md, "Weights over contexts".
  """
  return _ratio(moments.sum_p, moments.length)


def std_probs(moments: ResponseMoments) -> Float[Array, "B K P"]:
  """Standard deviation of a response's token probabilities: the width σ from which α is drawn.

  The sample deviation (n − 1), because the released code takes `torch.std`. In float32 the difference of the
  two sums can fall below zero by rounding; it is clamped. It also loses a σ much smaller than μ: what is left is
  right to 2e-3 in absolute terms, and σ > 0.03 to 1 % (method.md, "How exact is σ?"). The gradient is 0, not
  infinite, where σ is 0.

      std_probs = sqrt( (Σ_t p_t² − |y| μ²) / (|y| − 1) )

  Args:
    moments: sufficient statistics of the responses.

  Returns:
    A deviation in [0, 0.71]; 0 for an empty place and for a response of one token.

  Source: docs/method.md, "Weights over contexts"; deviation 7.
  """
  squares = moments.sum_p2 - moments.sum_p * mean_probs(moments)
  variance = _ratio(squares, moments.length - 1)
  spread = variance > 0
  return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0)


def _ratio(total: Float[Array, "B K P"], count: Float[Array, "B K P"]) -> Float[Array, "B K P"]:
  """`total / count` for whole counts ≥ 1, and 0 for smaller ones, in the value and in the gradient."""
  return jnp.where(count > 0, total / jnp.maximum(count, 1.0), 0.0)
