"""Objectives to compare AMoPO with, on the same seam and with the same report.

The pattern: a baseline is its unreduced losses, `(moments, pair_info) -> losses [B K]`, given to
`uniform_objective`, which weighs the contexts alike and averages over pairs. What a loss needs beyond that
(β, γ, reference log-probabilities) are keyword arguments of the baseline's `make_…` function, which closes
over them:

    def make_hinge(*, delta: float) -> Objective:
      def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
        return jax.nn.relu(delta - margins(mean_logps(moments)))
      return uniform_objective(losses, beta=1.0)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.objective import preference
from amopo_jax.objective.alpha import uniform
from amopo_jax.objective.moments import mean_logps
from amopo_jax.objective.reduction import Aux, Objective, reduce_losses
from amopo_jax.types import Noise, PairInfo, ResponseMoments, Scalar

PairLosses = Callable[[ResponseMoments, PairInfo], Float[Array, "B K"]]
"""Unreduced losses of every pair in every context."""


def uniform_objective(pair_losses: PairLosses, *, beta: float | Scalar) -> Objective:
  """Makes an objective of unreduced losses: the mean over contexts, then over the pairs of the step.

      loss = Σ_b weight_b (1/K) Σ_k losses_bk

  Args:
    pair_losses: the baseline; finite, also for empty places.
    beta: reward per nat of mean log-probability, > 0, of the rewards in the report.

  Returns:
    `objective(moments, noise, pair_info) -> (loss, Aux)`; the noise is not used.
  """

  def objective(moments: ResponseMoments, noise: Noise, pair_info: PairInfo) -> tuple[Scalar, Aux]:
    losses, counts = pair_losses(moments, pair_info), preference.keep(pair_info).counts
    alpha = uniform(moments, noise)
    return reduce_losses(losses, alpha, counts, moments=moments, pair_info=pair_info, beta=beta)

  return objective


def make_sft(*, beta: float | Scalar = 1.0) -> Objective:
  """Supervised fine-tuning on the chosen responses, in every context: where AMoPO starts from.

      L = Σ_b weight_b (1/K) Σ_k −mean_logps_bk(y_w)

  Args:
    beta: reward per nat, > 0, of the reported rewards only: give it the β of the stage that follows, and the
      two stages' margins can be compared.

  Returns:
    The objective; loss in nats per token.
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    return preference.sft_losses(moments)

  return uniform_objective(losses, beta=beta)


def make_sft_both(*, beta: float | Scalar = 1.0) -> Objective:
  """Supervised fine-tuning on both responses, for prompts that do not say which of them is wanted.

      L = Σ_b weight_b (1/K) Σ_k (1/2) Σ_p −mean_logps_bkp

  Args:
    beta: as of `make_sft`.

  Returns:
    The objective; loss in nats per token.
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    return -jnp.mean(mean_logps(moments), axis=-1)

  return uniform_objective(losses, beta=beta)


def make_simpo(*, beta: float | Scalar, target_margin: float | Scalar) -> Objective:
  """SimPO in every context alike; with one context it is SimPO, with K it is the equal-compute control.

      L = −Σ_b weight_b (1/K) Σ_k log σ( r_bk(y_w) − r_bk(y_l) − γ )

  Args:
    beta: β, reward per nat of mean log-probability, > 0.
    target_margin: γ in reward units, ≥ 0. Some implementations take the ratio γ/β; this is γ itself.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2405.14734; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    margins = preference.margins(preference.rewards(moments, beta))
    return preference.preference_losses(margins, target_margin)

  return uniform_objective(losses, beta=beta)


def make_orpo(*, ratio_weight: float | Scalar, beta: float | Scalar = 1.0) -> Objective:
  """ORPO (arXiv 2403.07691): supervised learning, and a Bradley-Terry term of the log odds of mean probabilities.

      L = Σ_b weight_b (1/K) Σ_k [ −mean_logps_bk(y_w) − λ log σ( odds_bk(y_w) − odds_bk(y_l) ) ]
      odds = mean_logps − log(1 − exp(mean_logps))

  Args:
    ratio_weight: λ, ≥ 0.
    beta: reward per nat, > 0, of the reported rewards only.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2403.07691; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    ratio = preference.margins(_log_odds(mean_logps(moments)))
    return preference.sft_losses(moments) + ratio_weight * preference.preference_losses(ratio, 0.0)

  return uniform_objective(losses, beta=beta)


def make_cpo(*, beta: float | Scalar, sft_weight: float | Scalar) -> Objective:
  """CPO (arXiv 2401.08417): DPO without a reference, and supervised learning of the chosen response.

      L = Σ_b weight_b (1/K) Σ_k [ −log σ( β (log π(y_w) − log π(y_l)) ) − λ log π(y_w) ]

  The supervised term is a mean over tokens, as TRL has it, so that λ does not depend on lengths.

  Args:
    beta: β, per nat of the sum of log-probabilities, > 0.
    sft_weight: λ, ≥ 0.

  Returns:
    The objective; loss in nats.

  Source: arXiv 2401.08417; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    ahead = preference.margins(beta * moments.sum_logp)
    return preference.preference_losses(ahead, 0.0) + sft_weight * preference.sft_losses(moments)

  return uniform_objective(losses, beta=beta)


def make_slic(*, beta: float | Scalar, target_margin: float | Scalar, sft_weight: float | Scalar) -> Objective:
  """SLiC-HF (arXiv 2305.10425): a hinge on the difference of log-probabilities, and supervised learning.

      L = Σ_b weight_b (1/K) Σ_k [ max(0, δ − β (log π(y_w) − log π(y_l))) − λ log π(y_w) ]

  Args:
    beta: β, per nat of the sum of log-probabilities, > 0; 1 in the paper.
    target_margin: δ, ≥ 0.
    sft_weight: λ, ≥ 0, of a mean over tokens.

  Returns:
    The objective.

  Source: arXiv 2305.10425; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    ahead = preference.margins(beta * moments.sum_logp)
    return jax.nn.relu(target_margin - ahead) + sft_weight * preference.sft_losses(moments)

  return uniform_objective(losses, beta=beta)


def make_rrhf(*, sft_weight: float | Scalar, beta: float | Scalar = 1.0) -> Objective:
  """RRHF (arXiv 2304.05302) of two responses: a hinge on the mean log-probabilities, and supervised learning.

      L = Σ_b weight_b (1/K) Σ_k [ max(0, mean_logps_bk(y_l) − mean_logps_bk(y_w)) − λ log π(y_w) ]

  Args:
    sft_weight: λ, ≥ 0, of a mean over tokens.
    beta: reward per nat, > 0, of the reported rewards only.

  Returns:
    The objective; loss in nats per token.

  Source: arXiv 2304.05302; deviations: docs/method.md, "The baselines".
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    behind = -preference.margins(mean_logps(moments))
    return jax.nn.relu(behind) + sft_weight * preference.sft_losses(moments)

  return uniform_objective(losses, beta=beta)


def _log_odds(logp: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
  """log(p / (1 − p)) of a log-probability; finite where p rounds to 1, also its gradient (an empty place has p = 1)."""
  below_one = jnp.minimum(logp, -_LEAST_LOSS)
  return below_one - jnp.log(-jnp.expm1(below_one))


_LEAST_LOSS = 1e-6
"""Nats per token below which a response counts as certain."""


BASELINES: dict[str, Callable[..., Objective]] = {
  "sft": make_sft,
  "sft_both": make_sft_both,
  "simpo": make_simpo,
  "orpo": make_orpo,
  "cpo": make_cpo,
  "slic": make_slic,
  "rrhf": make_rrhf,
}
"""The makers by the name a config gives them."""

CHOSEN_ALONE = frozenset({"sft"})
"""Of those, the ones that do not look at the rejected response."""
