"""Objectives that compare the policy with a reference policy, whose log-probabilities come with the pairs.

In a context k, ρ_k(y) = log π(y | x*_k) − log π_ref(y | x*_k), of the whole response. The reference is the policy that
training started from; its sums are computed once (`amopo_jax.reference`).
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amopo_jax.objective import preference
from amopo_jax.objective.alpha import AlphaFn, uniform
from amopo_jax.objective.baselines import uniform_objective
from amopo_jax.objective.preference import TiePolicy, follow_dimension
from amopo_jax.objective.reduction import Aux, Objective, reduce_losses
from amopo_jax.types import InputError, Noise, PairInfo, ResponseMoments, Scalar


def log_ratios(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K P"]:
  """ρ of every response, nats; 0 for an empty place.

  Raises:
    ValueError: the pairs come without their reference log-probabilities.
  """
  if pair_info.reference is None:
    raise ValueError("objective: the pairs have no reference log-probabilities; see amopo_jax.reference")
  return moments.sum_logp - pair_info.reference


def make_dpo(*, beta: float | Scalar) -> Objective:
  """DPO (arXiv 2305.18290) in every context: −log σ( β (ρ(y_w) − ρ(y_l)) ).

  Args:
    beta: β, per nat of ρ, > 0; rewards are reported as β × the mean log-probability, as for all objectives.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2305.18290; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    return preference.preference_losses(beta * preference.margins(log_ratios(moments, pair_info)), 0.0)

  return uniform_objective(losses, beta=beta)


def make_ipo(*, beta: float | Scalar) -> Objective:
  """IPO (arXiv 2310.12036) in every context: ( ρ(y_w)/|y_w| − ρ(y_l)/|y_l| − 1/(2τ) )².

  The paper writes sums over tokens; its results were made with means, as TRL, which asked its authors, has them.

  Args:
    beta: τ, > 0; also reward per nat in the report.

  Returns:
    The objective; loss in nats² per token.

  Source: arXiv 2310.12036; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    per_token = log_ratios(moments, pair_info) / jnp.maximum(moments.length, 1)
    return jnp.square(preference.margins(per_token) - 1 / (2 * beta))

  return uniform_objective(losses, beta=beta)


def make_kto(*, beta: float | Scalar) -> Objective:
  """KTO (arXiv 2402.01306) of the two responses of a pair, one desirable and one not, in every context.

      ½ [ 1 − σ( β (ρ(y_w) − z) ) ] + ½ [ 1 − σ( β (z − ρ(y_l)) ) ],   z = max(0, (ρ(y_w) + ρ(y_l))/2), constant

  The paper's z is a mean over unrelated pairs of the micro-batch, so that the loss would depend on how a step is
  split; here it is that of the pair itself.

  Args:
    beta: β, per nat of ρ, > 0.

  Returns:
    The objective; loss between 0 and 1.

  Source: arXiv 2402.01306; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    ratio = log_ratios(moments, pair_info)
    base = jax.lax.stop_gradient(jnp.maximum(jnp.mean(ratio, axis=-1), 0.0))
    sign = jnp.asarray([1.0, -1.0], ratio.dtype)
    value = jax.nn.sigmoid(beta * sign[None, None, :] * (ratio - base[..., None]))
    return jnp.mean(1 - value, axis=-1)

  return uniform_objective(losses, beta=beta)


def make_r_dpo(*, beta: float | Scalar, length_weight: float | Scalar) -> Objective:
  """R-DPO (arXiv 2403.19159) in every context: −log σ( β (ρ(y_w) − ρ(y_l)) + α (|y_w| − |y_l|) ).

  DPO whose reward pays α for each token: the best policy for r(y) − α |y| has r = βρ + α |y| up to a constant. What
  a chosen response wins by its length alone need not be learned; a shorter one has to get further ahead.

  Args:
    beta: β, per nat of ρ, > 0.
    length_weight: α, per token, ≥ 0.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2403.19159; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    ahead = beta * preference.margins(log_ratios(moments, pair_info))
    return preference.preference_losses(ahead + length_weight * preference.margins(moments.length), 0.0)

  return uniform_objective(losses, beta=beta)


def make_lambda_dpo(*, beta: float | Scalar, alpha_fn: AlphaFn, tie_policy: TiePolicy = follow_dimension) -> Objective:
  """λ-weighted DPO (arXiv 2506.19780, for pairs): each context's own DPO, weighted over contexts.

      L = Σ_b weight_b Σ_k λ_bk −log σ( s_bk β (ρ_bk(y_w) − ρ_bk(y_l)) )

  Args:
    beta: β, per nat of ρ, > 0.
    alpha_fn: λ: `alpha.simplex`, drawn anew for every pair, or `alpha.fixed`.
    tie_policy: gives the signs s and the terms that count: in the paper each dimension's own order.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2506.19780; deviations: docs/method.md, "The baselines".
  """

  def objective(moments: ResponseMoments, noise: Noise, pair_info: PairInfo) -> tuple[Scalar, Aux]:
    order = tie_policy(pair_info)
    ahead = order.sign * beta * preference.margins(log_ratios(moments, pair_info))
    losses = preference.preference_losses(ahead, 0.0)
    alpha = alpha_fn(moments, noise)
    return reduce_losses(losses, alpha, order.counts, moments=moments, pair_info=pair_info, beta=beta)

  return objective


def make_modpo(*, beta: float | Scalar, weights: Sequence[float], gap_margin: float | Scalar) -> Objective:
  """MODPO (arXiv 2310.03708) with the annotators' scores in place of trained reward models.

  Each context's dimension orders the pair, and the scores of the others say how far the policy has to be ahead:

      L_bk = −log σ( s_bk (1/w_k) [ β (ρ_bk(y_w) − ρ_bk(y_l)) − Σ_{j≠k} w_j r_bj ] ),   r_bj = gap_margin · score_gap_bj

  and s_bk = sign(score_gap_bk). The paper trains on one dimension's pairs; here the terms of all of them are averaged.
  Contexts without a dimension have a gap of 1 in every pair: leave them out.

  Args:
    beta: β, per nat of ρ, > 0.
    weights: w, one positive weight per context, up to a common factor.
    gap_margin: reward at the widest score gap, ≥ 0.

  Returns:
    The objective; loss in nats. It raises InputError, when it is traced, for another number of contexts.

  Raises:
    InputError: a weight that is not positive.

  Source: arXiv 2310.03708; deviations: docs/method.md, "The baselines".
  """
  if not weights or not all(0 < weight < math.inf for weight in weights):
    raise InputError(f"modpo: weights {tuple(weights)} are not all positive; give one per context")
  shares = np.asarray(weights, np.float64) / sum(weights)

  def objective(moments: ResponseMoments, noise: Noise, pair_info: PairInfo) -> tuple[Scalar, Aux]:
    gap = jnp.asarray(pair_info.score_gap)
    if gap.shape[1] != len(shares):
      raise InputError(f"modpo: {len(shares)} weights for {gap.shape[1]} contexts; give one weight per context")
    weight = jnp.asarray(shares, gap.dtype)[None, :]
    order, reward = follow_dimension(pair_info), gap_margin * gap
    others = jnp.sum(weight * reward, axis=-1, keepdims=True) - weight * reward
    ahead = (beta * preference.margins(log_ratios(moments, pair_info)) - others) / weight
    losses = preference.preference_losses(order.sign * ahead, 0.0)
    alpha = uniform(moments, noise)
    return reduce_losses(losses, alpha, order.counts, moments=moments, pair_info=pair_info, beta=beta)

  return objective


REFERENCED: dict[str, Callable[..., Objective]] = {
  "dpo": make_dpo,
  "ipo": make_ipo,
  "kto": make_kto,
  "r_dpo": make_r_dpo,
  "lambda_dpo": make_lambda_dpo,
  "modpo": make_modpo,
}
"""The makers by the name a config gives them."""
