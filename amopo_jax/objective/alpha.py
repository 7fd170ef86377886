"""Weights over contexts: `alpha_fn(moments, noise) -> alpha [B K]`.

An alpha function says how much each context's term counts for a pair. The contract: non-negative, rows sum to
1, constant under differentiation, finite for empty places, and no randomness but the `noise` that is handed
in. The one documented exception to the row sums is `gaussian_flat`, which is there to reproduce the released
code.

`gaussian` is the method; `softmax_mean` is it without the sampling, `jitter` without the signal, `uniform`
without either: the four together say which part of it matters (method.md, "How adaptive are the weights?").
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective.moments import mean_probs, std_probs
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

  Source: method.md §1, "Weights"; per pair, not over the micro-batch (§2, row 3).
  """
  return _softmax(_draws(moments, noise))


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

  Source: method.md §2, rows 3 and 4.
  """
  scores = jax.lax.stop_gradient(_draws(moments, noise))
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


ALPHAS: dict[str, AlphaFn] = {
  "gaussian": gaussian,
  "gaussian_flat": gaussian_flat,
  "uniform": uniform,
  "softmax_mean": softmax_mean,
  "jitter": jitter,
}
"""The alpha functions by the name a config gives them; `fixed` is made from its weights."""

WHOLE_BATCH = frozenset({"gaussian_flat"})
"""Names of those whose value for a pair depends on the other pairs: no accumulation, no data parallelism."""


def _draws(moments: ResponseMoments, noise: Noise) -> Float[Array, "B K"]:
  """Σ_p (μ_p + σ_p ε_p): the two responses' draws of each context, added."""
  return jnp.sum(mean_probs(moments) + std_probs(moments) * noise, axis=-1)


def _softmax(scores: Float[Array, "B K"]) -> Alpha:
  """Softmax over the contexts of each pair, constant under differentiation."""
  return jax.nn.softmax(jax.lax.stop_gradient(scores), axis=-1)
