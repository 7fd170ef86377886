"""From the config's names to an objective; an argument that the named objective would ignore is refused."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from amopo_jax.data.layout import Layout
from amopo_jax.objective import (
  ALPHAS,
  BASELINES,
  CHOSEN_ALONE,
  REFERENCED,
  TIE_POLICIES,
  WHOLE_BATCH,
  AlphaFn,
  Conflict,
  Objective,
  Uncertainty,
  by_variance,
  check_radius,
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
  "per_turn": False,
  "loss_power": 0.0,
  "gap_power": 0.0,
  "uncertainty_rate": 0.0,
}
"""Keys that not every objective uses, with the value of `configs/base.py` that they must be left at elsewhere."""

USED = {
  "amopo": (
    "target_margin",
    "alpha",
    "fixed_alpha",
    "ties",
    "gap_margin",
    "sft_weight",
    "per_turn",
    "loss_power",
    "gap_power",
    "uncertainty_rate",
  ),
  "sft": (),
  "sft_both": (),
  "simpo": ("target_margin",),
  "orpo": ("ratio_weight",),
  "cpo": ("sft_weight",),
  "slic": ("target_margin", "sft_weight"),
  "rrhf": ("sft_weight",),
  "dpo": (),
  "ipo": (),
  "kto": (),
  "r_dpo": ("length_weight",),
  "lambda_dpo": ("alpha", "fixed_alpha", "ties"),
  "modpo": ("fixed_alpha", "gap_margin"),
}
"""What each objective uses besides beta."""

_COUNTED = {"keep": "all", "mask_ties": "agreeing", "follow_dimension": "decided", "mask_equal": "decided"}
"""In which contexts a term counts, by the tie policy: of `layout.WHERE`."""

_TIES = {"modpo": "follow_dimension"}
"""Tie policies that are no choice; the others that have none are left at `keep`."""

_NO_ARGUMENTS = ("alpha", "fixed_alpha", "ties", "uncertainty_rate")
"""Of those, the ones that its maker does not take by their names."""

_NOT_NEGATIVE = (
  "target_margin",
  "gap_margin",
  "sft_weight",
  "ratio_weight",
  "length_weight",
  "uncertainty_rate",
  "gap_power",
)


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
  _named("ties", spec.ties, TIE_POLICIES)
  _check_numbers(spec)
  _check_unused(spec)
  return maker(beta=spec.beta, **_arguments(spec, num_contexts, parts))


def build_conflict(spec: ObjectiveSpec, num_contexts: int) -> Conflict | None:
  """How the contexts' gradients become one; None where they are added.

  Raises:
    InputError: a radius outside of [0, 1), or weights of which one is 0.
  """
  check_radius(spec.conflict_radius, num_contexts)
  if not spec.conflict_radius:
    return None
  weights = spec.fixed_alpha or (1.0,) * num_contexts
  if min(weights) <= 0:
    raise InputError("config.objective.fixed_alpha: with conflict_radius every weight has to be positive")
  return Conflict(tuple(weight / sum(weights) for weight in weights), spec.conflict_radius)


def build_uncertainty(spec: ObjectiveSpec, num_contexts: int, *, parts: int) -> Uncertainty | None:
  """The objective whose weights are learned; None where none are. Arguments as of `build_objective`."""
  if not spec.uncertainty_rate:
    return None
  arguments = _arguments(spec, num_contexts, parts)
  alpha_fn = arguments.pop("alpha_fn")
  make = lambda learned: make_amopo(beta=spec.beta, alpha_fn=by_variance(alpha_fn, learned), **arguments)
  return Uncertainty(make, spec.uncertainty_rate)


def needs_reference(spec: ObjectiveSpec) -> bool:
  """Whether the pairs have to bring the log-probabilities of a reference policy."""
  return spec.name in REFERENCED


def layout_used(spec: ObjectiveSpec) -> Layout:
  """The sequences whose moments the objective looks at; the others need not be in a training batch."""
  if spec.name in CHOSEN_ALONE:
    return Layout(rejected="none")
  ties = _TIES.get(spec.name) or spec.ties
  if spec.alpha in WHOLE_BATCH:
    ties = "keep"  # a dropped term takes part in the softmax
  compared = _COUNTED[ties]
  return Layout(chosen="all" if spec.sft_weight else compared, rejected=compared)


def check_drawn(spec: ObjectiveSpec, contexts_per_pair: int) -> None:
  """Refuses weights over contexts that mean nothing, or something else, where a step sees some contexts of a pair.

  Args:
    spec: of the config.
    contexts_per_pair: of the config; 0: all.

  Raises:
    InputError: names the key.
  """
  if not contexts_per_pair:
    return
  plain: dict[str, Any] = {"per_turn": False, "gap_power": 0.0, "conflict_radius": 0.0}
  if contexts_per_pair == 1:
    plain |= {"loss_power": 0.0, "uncertainty_rate": 0.0}
    plain |= {"alpha": "uniform"} if "alpha" in USED[spec.name] else {}
  for key, value in plain.items():
    if getattr(spec, key) != value:
      raise InputError(
        f"config.objective.{key}: {getattr(spec, key)!r} weighs contexts against each other, of which a step sees "
        f"{contexts_per_pair} of a pair; set it to {value!r}, or data.contexts_per_pair to 0"
      )


def _arguments(spec: ObjectiveSpec, num_contexts: int, parts: int) -> dict[str, Any]:
  """What the maker takes besides beta."""
  used = USED[spec.name]
  found = {key: getattr(spec, key) for key in used if key not in _NO_ARGUMENTS}
  if "alpha" in used:
    found["alpha_fn"] = _alpha_fn(spec, num_contexts, parts)
  elif "fixed_alpha" in used:
    found["weights"] = spec.fixed_alpha or (1.0,) * num_contexts
    _check_count(found["weights"], num_contexts)
  if "ties" in used:
    found["tie_policy"] = TIE_POLICIES[spec.ties]
  return found


def _check_numbers(spec: ObjectiveSpec) -> None:
  if not 0 < spec.beta < math.inf:
    raise InputError(f"config.objective.beta: {spec.beta} is not positive; the paper uses 0.8")
  for key in _NOT_NEGATIVE:
    value = getattr(spec, key)
    if not 0 <= value < math.inf:
      raise InputError(f"config.objective.{key}: {value} is not a finite number of at least 0; correct it")
  if not math.isfinite(spec.loss_power):
    raise InputError(f"config.objective.loss_power: {spec.loss_power} is not finite; 0 leaves alpha as it is")
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
    _check_count(spec.fixed_alpha, num_contexts)
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


def _check_count(weights: Sequence[float], num_contexts: int) -> None:
  if len(weights) != num_contexts:
    raise InputError(f"config.objective.fixed_alpha: {len(weights)} weights for {num_contexts} contexts")


def _named(key: str, name: str, choices: Mapping[str, Any]) -> Any:
  check_name(f"config.objective.{key}", name, sorted(choices))
  return choices[name]
