"""Draws of a token probability of a response, from its mean, its deviation and a standard normal number.

The Gaussian of the method (docs/method.md) gives weight to probabilities below 0 and above 1. The others stay within,
each as a quantile: the same noise gives a high draw under all of them, and zero noise their median.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, ndtr, ndtri
from jaxtyping import Array, Float

from amopo_jax.objective.moments import mean_probs, std_probs
from amopo_jax.types import Noise, ResponseMoments

DrawFn = Callable[[ResponseMoments, Noise], Float[Array, "B K P"]]
"""One draw per response."""

_LEAST = 1e-6
"""Deviations below this are none, and means stay so far from 0 and 1."""

_HALVINGS = 24
"""Of [0, 1], which leaves 6e-8."""


def gaussian_draws(moments: ResponseMoments, noise: Noise) -> Float[Array, "B K P"]:
  """x = μ + σ ε, as released; x may lie outside of [0, 1]."""
  return mean_probs(moments) + std_probs(moments) * noise


def beta_draws(moments: ResponseMoments, noise: Noise) -> Float[Array, "B K P"]:
  """The quantile Φ(ε) of the Beta distribution with the same mean and deviation, in [0, 1].

      x = F⁻¹(Φ(ε); μν, (1 − μ)ν),   ν = μ(1 − μ)/σ² − 1

  The deviation of a sample can exceed what any distribution on [0, 1] has by a factor √(n/(n−1)); ν is at least 0.01.
  No gradient flows through the quantile, whose derivative in μ and σ nobody has written.

  Source: moment matching; docs/method.md, "Weights over contexts".
  """
  moments = jax.lax.stop_gradient(moments)
  mean, std = _mean(moments), std_probs(moments)
  total = jnp.maximum(mean * (1 - mean) / jnp.maximum(jnp.square(std), _LEAST**2) - 1, 0.01)
  total = jnp.minimum(total, 1e6)  # where the deviation is none
  share, first, second = ndtr(noise), mean * total, (1 - mean) * total

  def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = ends
    middle = (low + high) / 2
    is_low = betainc(first, second, middle) < share
    return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

  low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(share), jnp.ones_like(share)))
  return jnp.where(std > _LEAST, (low + high) / 2, mean_probs(moments))


def logistic_normal_draws(moments: ResponseMoments, noise: Noise) -> Float[Array, "B K P"]:
  """A Gaussian of the log odds, with the deviation that σ has there to first order; in [0, 1], μ without noise.

      x = sigmoid( log(μ/(1 − μ)) + σ/(μ(1 − μ)) ε )

  Source: docs/method.md, "Weights over contexts".
  """
  mean = _mean(moments)
  odds = jnp.log(mean) - jnp.log1p(-mean)
  return jax.nn.sigmoid(odds + std_probs(moments) / (mean * (1 - mean)) * noise)


def truncated_normal_draws(moments: ResponseMoments, noise: Noise) -> Float[Array, "B K P"]:
  """The quantile Φ(ε) of the Gaussian of the method without what lies outside of [0, 1].

      x = μ + σ Φ⁻¹( Φ(a) + Φ(ε) (Φ(b) − Φ(a)) ),   a = −μ/σ, b = (1 − μ)/σ

  Its mean is drawn towards 1/2, the more the wider it is.

  Source: docs/method.md, "Weights over contexts".
  """
  mean, std = mean_probs(moments), jnp.maximum(std_probs(moments), _LEAST)
  low, high = ndtr(-mean / std), ndtr((1 - mean) / std)
  share = jnp.clip(low + ndtr(noise) * (high - low), _LEAST, 1 - _LEAST)
  return jnp.clip(mean + std * ndtri(share), 0.0, 1.0)


def _mean(moments: ResponseMoments) -> Float[Array, "B K P"]:
  return jnp.clip(mean_probs(moments), _LEAST, 1 - _LEAST)
