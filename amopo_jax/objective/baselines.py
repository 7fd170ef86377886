"""Objectives to compare AMoPO with, on the same seam and with the same report.

The pattern: a baseline is its unreduced losses, `(moments, pair_info) -> losses [B K]`, given to
`uniform_objective`, which weighs the contexts alike and averages over pairs. What a loss needs beyond that
(β, γ, reference log-probabilities) are keyword arguments of the baseline's `make_…` function, which closes
over them:

    def make_slic(*, delta: float) -> Objective:
      def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
        return jax.nn.relu(delta - margins(mean_logps(moments)))
      return uniform_objective(losses, beta=1.0)
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from amopo_jax.objective import preference
from amopo_jax.objective.alpha import uniform
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


def make_simpo(*, beta: float | Scalar, target_margin: float | Scalar) -> Objective:
  """SimPO in every context alike; with one context it is SimPO, with K it is the equal-compute control.

      L = −Σ_b weight_b (1/K) Σ_k log σ( r_bk(y_w) − r_bk(y_l) − γ )

  Args:
    beta: β, reward per nat of mean log-probability, > 0.
    target_margin: γ in reward units, ≥ 0. Some implementations take the ratio γ/β; this is γ itself.

  Returns:
    The objective; loss in nats.

  Source: method.md §4.
  """

  def losses(moments: ResponseMoments, pair_info: PairInfo) -> Float[Array, "B K"]:
    del pair_info
    margins = preference.margins(preference.rewards(moments, beta))
    return preference.preference_losses(margins, target_margin)

  return uniform_objective(losses, beta=beta)


BASELINES: dict[str, Callable[..., Objective]] = {"sft": make_sft, "simpo": make_simpo}
"""The makers by the name a config gives them."""
