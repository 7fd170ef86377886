"""From the config's names to an objective; an argument that the named objective would ignore is refused."""

import math
from collections.abc import Mapping
from typing import Any

from amopo_jax.objective import (
  ALPHAS,
  BASELINES,
  REFERENCED,
  TIE_POLICIES,
  WHOLE_BATCH,
  AlphaFn,
  Objective,
  fixed,
  make_amopo,
)
from amopo_jax.run_spec import ObjectiveSpec, check_name
from amopo_jax.types import InputError

DEFAULTS = {
  "alpha": "gaussian",
  "fixed_alpha": (),
  "ties": "keep",
  "gap_margin": 0.0,
  "sft_weight": 0.0,
  "ratio_weight": 0.1,
  "length_weight": 0.0,
}
"""Keys that not every objective uses, with the value of `configs/base.py` that they must be left at elsewhere."""

USED = {
  "amopo": ("alpha", "fixed_alpha", "ties", "gap_margin", "sft_weight"),
  "sft": (),
  "simpo": ("target_margin",),
  "orpo": ("ratio_weight",),
  "cpo": ("sft_weight",),
  "slic": ("target_margin", "sft_weight"),
  "rrhf": ("sft_weight",),
  "dpo": (),
  "ipo": (),
  "kto": (),
  "r_dpo": ("length_weight",),
}
"""What each objective uses besides beta."""


def build_objective(spec: ObjectiveSpec, num_contexts: int, *, parts: int) -> Objective:
  """The objective by name.

  Args:
    spec: of the config.
    num_contexts: K.
    parts: micro-batches times row shards: an α that is normalised over the batch allows one.

  Raises:
    InputError: unknown name, a number that is not finite, or an argument that the named objective would ignore.
  """
  maker = _named("name", spec.name, {**BASELINES, **REFERENCED, "amopo": make_amopo})
  _named("alpha", spec.alpha, ALPHAS | {"fixed": fixed})
  tie_policy = _named("ties", spec.ties, TIE_POLICIES)
  _check_numbers(spec)
  _check_unused(spec)
  if spec.name == "amopo":
    return make_amopo(
      alpha_fn=_alpha_fn(spec, num_contexts, parts),
      beta=spec.beta,
      target_margin=spec.target_margin,
      tie_policy=tie_policy,
      gap_margin=spec.gap_margin,
      sft_weight=spec.sft_weight,
    )
  return maker(beta=spec.beta, **{key: getattr(spec, key) for key in USED[spec.name]})


def needs_reference(spec: ObjectiveSpec) -> bool:
  """Whether the pairs have to bring the log-probabilities of a reference policy."""
  return spec.name in REFERENCED


def _check_numbers(spec: ObjectiveSpec) -> None:
  if not 0 < spec.beta < math.inf:
    raise InputError(f"config.objective.beta: {spec.beta} is not positive; the paper uses 0.8")
  for key in ("target_margin", "gap_margin", "sft_weight", "ratio_weight", "length_weight"):
    value = getattr(spec, key)
    if not 0 <= value < math.inf:
      raise InputError(f"config.objective.{key}: {value} is not a finite number of at least 0; correct it")
  if not all(math.isfinite(weight) for weight in spec.fixed_alpha):
    raise InputError(f"config.objective.fixed_alpha: {spec.fixed_alpha} is not finite; give one number per context")


def _check_unused(spec: ObjectiveSpec) -> None:
  for key, default in DEFAULTS.items():
    value = getattr(spec, key)
    if value != default and key not in USED[spec.name]:
      users = " or ".join(name for name, used in USED.items() if key in used)
      raise InputError(
        f"config.objective.{key}: {value!r} has no effect on {spec.name}; leave it at {default!r}, "
        f"or set name to {users}"
      )


def _alpha_fn(spec: ObjectiveSpec, num_contexts: int, parts: int) -> AlphaFn:
  if spec.alpha == "fixed":
    if len(spec.fixed_alpha) != num_contexts:
      raise InputError(f"config.objective.fixed_alpha: {len(spec.fixed_alpha)} weights for {num_contexts} contexts")
    return fixed(spec.fixed_alpha)
  if spec.fixed_alpha:
    raise InputError(
      f"config.objective.fixed_alpha: is set, but alpha is {spec.alpha!r}; set alpha to fixed, or leave it empty"
    )
  if spec.alpha in WHOLE_BATCH and parts > 1:
    raise InputError(
      f"config.objective.alpha: {spec.alpha} is normalised over the batch, so its value would depend on accumulation "
      "and data parallelism; use one micro-batch on one device, or gaussian"
    )
  return ALPHAS[spec.alpha]


def _named(key: str, name: str, choices: Mapping[str, Any]) -> Any:
  check_name(f"config.objective.{key}", name, sorted(choices))
  return choices[name]
