"""Weights over contexts: `alpha_fn(moments, noise) -> alpha [B K]`.

An alpha function says how much each context's term counts for a pair. The contract: non-negative, rows sum to
1, constant under differentiation, finite for empty places, and no randomness but the `noise` that is handed
in. The one documented exception to the row sums is `gaussian_flat`, which is there to reproduce the released
code.

`gaussian` is the method; `softmax_mean` is it without the sampling, `jitter` without the signal, `uniform`
without either: the four together say which part of it matters (method.md, "How adaptive are the weights?").
`matched_beta`, `logistic_normal` and `truncated_normal` draw from distributions on [0, 1] instead.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from amopo_jax.objective import draws
from amopo_jax.objective.moments import mean_logps, mean_probs, std_probs
from amopo_jax.types import Alpha, InputError, Noise, ResponseMoments

AlphaFn = Callable[[ResponseMoments, Noise], Alpha]
"""The seam: any function of this shape can be handed to `make_amopo`."""


def gaussian(moments: ResponseMoments, noise: Noise) -> Alpha:
  """One draw per response from the Gaussian of its token probabilities; the contexts of a pair compete.

  A context in which the policy is more confident of the two responses gets more weight. Zero noise gives
  `softmax_mean`.

      α_b = softmax_k Σ_p (μ_bkp + σ_bkp ε_bkp)

  Args:
    moments: sufficient statistics, from which μ = mean_probs and σ = std_probs.
    noise: ε, standard normal draws.

  Returns:
    Weights; rows sum to 1.

  Source: docs/method.md, "Weights over contexts"; per pair, not over the micro-batch (deviation 3).
  """
  return _softmax(jnp.sum(draws.gaussian_draws(moments, noise), axis=-1))


def gaussian_flat(moments: ResponseMoments, noise: Noise) -> Alpha:
  """The released normalisation: one softmax over all terms of the micro-batch. For reproduction only.

  The released loss is the `.mean()` over K·B terms of α_bk·losses_bk with Σ_bk α_bk = 1. Here the weights
  carry that mean's 1/K and the objective's pair weights 1/B do the rest. The value depends on which pairs
  share a micro-batch, so it is refused wherever a step is split (`WHOLE_BATCH`); empty places take no part.

      α_bk = (1/K) softmax_{(b,k)} Σ_p (μ_bkp + σ_bkp ε_bkp)

  Args:
    moments: sufficient statistics, from which μ = mean_probs and σ = std_probs.
    noise: ε, standard normal draws.

  Returns:
    Weights which sum to 1/K over the *whole* array, not to 1 per row: the exception to the contract.

  Source: docs/method.md, deviations 3 and 4.
  """
  scores = jax.lax.stop_gradient(jnp.sum(draws.gaussian_draws(moments, noise), axis=-1))
  is_real = jnp.any(moments.length > 0, axis=-1)
  top = jnp.max(scores, where=is_real, initial=-jnp.inf)
  terms = jnp.where(is_real, jnp.exp(scores - top), 0.0)
  return terms / (jnp.maximum(jnp.sum(terms), 1.0) * scores.shape[-1])  # the top term alone makes the sum ≥ 1


def uniform(moments: ResponseMoments, noise: Noise) -> Alpha:
  """The same weight for every context, `α = 1/K`: the control without adaptation."""
  del noise
  batch, contexts, _ = moments.length.shape
  return jnp.full((batch, contexts), 1.0 / contexts, moments.length.dtype)


def fixed(weights: Sequence[float]) -> AlphaFn:
  """Makes an alpha function of the same weights for every pair, `α_bk = w_k / Σ w`.

  Args:
    weights: one finite weight ≥ 0 per context, up to a common factor; (1, 1, 2) is (0.25, 0.25, 0.5).

  Returns:
    An alpha function; it raises InputError, when it is traced, for another number of contexts.

  Raises:
    InputError: no weights, a negative or non-finite weight, or nothing but zeros.
  """
  if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
    raise InputError(
      f"alpha fixed: weights {tuple(weights)} cannot be normalised; give one finite weight "
      ">= 0 per context, at least one of them > 0"
    )
  shares = tuple(weight / sum(weights) for weight in weights)

  def fixed_alpha(moments: ResponseMoments, noise: Noise) -> Alpha:
    del noise
    batch, contexts, _ = moments.length.shape
    if contexts != len(shares):
      raise InputError(f"alpha fixed: {len(shares)} weights for {contexts} contexts; give one weight per context")
    return jnp.broadcast_to(jnp.asarray(shares, moments.length.dtype)[None, :], (batch, contexts))

  return fixed_alpha


def softmax_mean(moments: ResponseMoments, noise: Noise) -> Alpha:
  """The Gaussian's signal without its sampling: `α_b = softmax_k Σ_p μ_bkp`. The noise is not used."""
  del noise
  return _softmax(jnp.sum(mean_probs(moments), axis=-1))


def jitter(moments: ResponseMoments, noise: Noise) -> Alpha:
  """The Gaussian's sampling without its signal: `α_b = softmax_k Σ_p σ_bkp ε_bkp`.

  Random weights whose logits have the variance of `gaussian`'s, so that a comparison with `gaussian` shows
  what the means contribute, and a comparison with `uniform` what mere randomness does.
  """
  return _softmax(jnp.sum(std_probs(moments) * noise, axis=-1))


def matched_beta(moments: ResponseMoments, noise: Noise) -> Alpha:
  """`gaussian` with a Beta distribution of the same mean and deviation: `draws.beta_draws`."""
  return _softmax(jnp.sum(draws.beta_draws(moments, noise), axis=-1))


def logistic_normal(moments: ResponseMoments, noise: Noise) -> Alpha:
  """`gaussian` with a Gaussian of the log odds: `draws.logistic_normal_draws`."""
  return _softmax(jnp.sum(draws.logistic_normal_draws(moments, noise), axis=-1))


def truncated_normal(moments: ResponseMoments, noise: Noise) -> Alpha:
  """`gaussian` without what lies outside of [0, 1]: `draws.truncated_normal_draws`."""
  return _softmax(jnp.sum(draws.truncated_normal_draws(moments, noise), axis=-1))


def entropy(moments: ResponseMoments, noise: Noise) -> Alpha:
  """Confidence in nats: `α_b = softmax_k Σ_p mean_logps_bkp`. The noise is not used.

  −mean_logps is the cross-entropy of the data's response, which the policy did not draw: what stands in for the
  policy's entropy in that context. Unlike a probability it tells 1e-2 from 1e-4. A context in which the policy is more
  certain of the two responses gets more weight.
  """
  del noise
  scores = jnp.sum(mean_logps(moments), axis=-1)
  is_scored = jnp.all(moments.length > 0, axis=-1)  # what was not scored has 0 nats, and would outweigh all others
  return _softmax(jnp.where(is_scored, scores, jnp.min(scores, axis=-1, keepdims=True)))


def simplex(moments: ResponseMoments, noise: Noise) -> Alpha:
  """Weights drawn evenly from all that sum to 1, whatever the policy does: the λ of λ-weighted DPO.

      e_bk = −log Φ(ε_bk1),   α_bk = e_bk / Σ_j e_bj

  −log of a uniform number is exponential, and exponentials over their sum are Dirichlet(1, …, 1). Zero noise gives
  `uniform`. Only the first member's noise is used.
  """
  del moments
  exponentials = jnp.maximum(-log_ndtr(noise[..., 0]), 1e-12)
  return exponentials / jnp.sum(exponentials, axis=-1, keepdims=True)


ALPHAS: dict[str, AlphaFn] = {
  "gaussian": gaussian,
  "gaussian_flat": gaussian_flat,
  "uniform": uniform,
  "softmax_mean": softmax_mean,
  "jitter": jitter,
  "matched_beta": matched_beta,
  "logistic_normal": logistic_normal,
  "truncated_normal": truncated_normal,
  "entropy": entropy,
  "simplex": simplex,
}
"""The alpha functions by the name a config gives them; `fixed` is made from its weights."""

WHOLE_BATCH = frozenset({"gaussian_flat"})
"""Names of those whose value for a pair depends on the other pairs: no accumulation, no data parallelism."""


def _softmax(scores: Float[Array, "B K"]) -> Alpha:
  """Softmax over the contexts of each pair, constant under differentiation."""
  return jax.nn.softmax(jax.lax.stop_gradient(scores), axis=-1)
