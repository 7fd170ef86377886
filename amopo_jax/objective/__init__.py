"""The maths of AMoPO as pure functions: moments → rewards, weights over contexts → loss.

    objective = make_amopo(alpha_fn=gaussian, beta=0.8, target_margin=2.0)
    loss, aux = objective(moments, noise, pair_info)

No parameters, model, mesh, config or random key in here; see docs/method.md for the equations and
docs/functional.md for a training loop of one's own around them.
"""

from amopo_jax.objective.alpha import (
  ALPHAS,
  WHOLE_BATCH,
  AlphaFn,
  entropy,
  fixed,
  gaussian,
  gaussian_flat,
  jitter,
  logistic_normal,
  matched_beta,
  simplex,
  softmax_mean,
  truncated_normal,
  uniform,
)
from amopo_jax.objective.amopo import make_amopo
from amopo_jax.objective.baselines import (
  BASELINES,
  CHOSEN_ALONE,
  PairLosses,
  make_cpo,
  make_orpo,
  make_rrhf,
  make_sft,
  make_sft_both,
  make_simpo,
  make_slic,
  uniform_objective,
)
from amopo_jax.objective.conflict import Conflict, check_radius, resolve_conflict
from amopo_jax.objective.moments import mean_logps, mean_probs, std_probs
from amopo_jax.objective.preference import (
  TIE_POLICIES,
  Order,
  TiePolicy,
  follow_dimension,
  keep,
  margins,
  mask_equal,
  mask_ties,
  preference_losses,
  rewards,
  sft_losses,
  target_margins,
)
from amopo_jax.objective.reduction import Aux, Objective, reduce_losses
from amopo_jax.objective.reference import (
  REFERENCED,
  log_ratios,
  make_dpo,
  make_ipo,
  make_kto,
  make_lambda_dpo,
  make_modpo,
  make_r_dpo,
)
from amopo_jax.objective.reweigh import by_variance
from amopo_jax.objective.uncertainty import LogVariances, Uncertainty, descend

__all__ = [
  "ALPHAS",
  "BASELINES",
  "CHOSEN_ALONE",
  "REFERENCED",
  "TIE_POLICIES",
  "WHOLE_BATCH",
  "AlphaFn",
  "Aux",
  "Conflict",
  "LogVariances",
  "Objective",
  "Order",
  "PairLosses",
  "TiePolicy",
  "Uncertainty",
  "by_variance",
  "check_radius",
  "descend",
  "entropy",
  "fixed",
  "follow_dimension",
  "gaussian",
  "gaussian_flat",
  "jitter",
  "keep",
  "log_ratios",
  "logistic_normal",
  "make_amopo",
  "make_cpo",
  "make_dpo",
  "make_ipo",
  "make_kto",
  "make_lambda_dpo",
  "make_modpo",
  "make_orpo",
  "make_r_dpo",
  "make_rrhf",
  "make_sft",
  "make_sft_both",
  "make_simpo",
  "make_slic",
  "margins",
  "mask_equal",
  "mask_ties",
  "matched_beta",
  "mean_logps",
  "mean_probs",
  "preference_losses",
  "reduce_losses",
  "resolve_conflict",
  "rewards",
  "sft_losses",
  "simplex",
  "softmax_mean",
  "std_probs",
  "target_margins",
  "truncated_normal",
  "uniform",
  "uniform_objective",
]
