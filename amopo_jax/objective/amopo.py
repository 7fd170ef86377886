"""The AMoPO objective: a weighted sum of log-sigmoids, one Bradley-Terry term per context.

It is not a log-sigmoid of a weighted sum of rewards: each context's term keeps its own gradient scale
σ(γ − margin), so a dimension that is already learned stops pulling whatever the others do.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective import preference
from amopo_jax.objective.alpha import AlphaFn
from amopo_jax.objective.preference import TiePolicy, keep
from amopo_jax.objective.reduction import Aux, Objective, reduce_losses
from amopo_jax.objective.reweigh import by_gap, by_loss, by_turn
from amopo_jax.types import CHOSEN, Noise, PairInfo, ResponseMoments, Scalar


def make_amopo(
  *,
  alpha_fn: AlphaFn,
  beta: float | Scalar,
  target_margin: float | Scalar,
  tie_policy: TiePolicy = keep,
  gap_margin: float | Scalar = 0.0,
  sft_weight: float | Scalar = 0.0,
  per_turn: bool = False,
  loss_power: float = 0.0,
  gap_power: float = 0.0,
) -> Objective:
  """Makes the objective of AMoPO from its parts.

  The defaults are the method; the last six arguments are extensions. The numbers may be traced, so `vmap`
  over them inside a function that makes the objective trains a whole grid at once (docs/functional.md).

      L = −Σ_b weight_b Σ_k α_bk log σ( s_bk (r_bk(y_w) − r_bk(y_l)) − γ_bk )
          + sft_weight Σ_b weight_b mean_k −mean_logps_bk(y_w)

  Both are over the contexts that the batch holds of the pair (`config.data.contexts_per_pair`).

  Args:
    alpha_fn: weights over contexts, such as `alpha.gaussian`.
    beta: β, reward per nat of mean log-probability, > 0.
    target_margin: γ, what a margin must exceed, in reward units, ≥ 0.
    tie_policy: gives the signs s and the terms that count, over which α is renormalised.
    gap_margin: additional γ at the widest score gap, in reward units, ≥ 0.
    sft_weight: weight of the supervised loss of the annotators' chosen response, ≥ 0; holds its reward up.
    per_turn: α is multiplied by what the pair's turn wants, α_bk ← α_bk wanted_bk / Σ_j α_bj wanted_bj.
    loss_power: p in α_bk ← α_bk l_bk^p / Σ_j α_bj l_bj^p with the terms' losses l; 0 leaves α alone. With uniform α, −1
      divides each term by its loss, as uncertainty weighting does for a task, 1 turns to what is not learned yet.
    gap_power: p ≥ 0 in α_bk ← α_bk |score_gap_bk|^p / Σ_j α_bj |score_gap_bj|^p; wide gaps are the safer labels.

  Returns:
    `objective(moments, noise, pair_info) -> (loss, Aux)`; the loss in nats, a mean over the pairs of the
    step.

  Source: docs/method.md, "The objective": L with SimPO's γ.
  """

  def objective(moments: ResponseMoments, noise: Noise, pair_info: PairInfo) -> tuple[Scalar, Aux]:
    order = tie_policy(pair_info)
    margins = preference.margins(preference.rewards(moments, beta))
    target = preference.target_margins(target_margin, gap_margin, pair_info)
    losses = preference.preference_losses(order.sign * margins, target)
    alpha = alpha_fn(moments, noise)
    if per_turn and pair_info.wanted is not None:
      alpha = by_turn(alpha, pair_info.wanted)
    if gap_power:
      alpha = by_gap(alpha, pair_info.score_gap, gap_power)
    if loss_power:
      alpha = by_loss(alpha, losses, loss_power)
    loss, aux = reduce_losses(losses, alpha, order.counts, moments=moments, pair_info=pair_info, beta=beta)
    sft_loss = jnp.sum(pair_info.weight * _mean_of_scored(preference.sft_losses(moments), moments))
    return loss + sft_weight * sft_loss, aux

  return objective


def _mean_of_scored(losses: Float[Array, "B K"], moments: ResponseMoments) -> Float[Array, " B"]:
  """Over the contexts whose chosen response was scored; 0 where there is none, as the losses are."""
  is_scored = jnp.asarray(moments.length[..., CHOSEN] > 0, losses.dtype)
  return jnp.sum(losses, axis=-1) / jnp.maximum(jnp.sum(is_scored, axis=-1), 1)
