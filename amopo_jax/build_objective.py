"""From the config's names to an objective; an argument that the named objective would ignore is refused."""

import math
from collections.abc import Mapping
from typing import Any

from amopo_jax.objective import (
  ALPHAS,
  BASELINES,
  TIE_POLICIES,
  WHOLE_BATCH,
  AlphaFn,
  Objective,
  fixed,
  make_amopo,
)
from amopo_jax.run_spec import ObjectiveSpec, check_name
from amopo_jax.types import InputError


def build_objective(spec: ObjectiveSpec, num_contexts: int, *, parts: int) -> Objective:
  """The objective by name.

  Args:
    spec: of the config.
    num_contexts: K.
    parts: micro-batches times row shards: an α that is normalised over the batch allows one.

  Raises:
    InputError: unknown name, or an argument that the named objective would ignore.
  """
  if not 0 < spec.beta < math.inf:
    raise InputError(f"config.objective.beta: {spec.beta} is not positive; the paper uses 0.8")
  if spec.name == "amopo":
    return make_amopo(
      alpha_fn=_alpha_fn(spec, num_contexts, parts),
      beta=spec.beta,
      target_margin=spec.target_margin,
      tie_policy=_named("ties", spec.ties, TIE_POLICIES),
      gap_margin=spec.gap_margin,
      sft_weight=spec.sft_weight,
    )
  maker = _named("name", spec.name, {**BASELINES, "amopo": make_amopo})
  arguments = {"beta": spec.beta} | ({"target_margin": spec.target_margin} if spec.name != "sft" else {})
  return maker(**arguments)


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
  return _named("alpha", spec.alpha, ALPHAS | {"fixed": fixed})


def _named(key: str, name: str, choices: Mapping[str, Any]) -> Any:
  check_name(f"config.objective.{key}", name, sorted(choices))
  return choices[name]
