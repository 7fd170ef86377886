"""The train step of a run: where mesh, shardings, objective, score function and optimizer come together.

`prepare` runs what is built here and `plan` compiles it for devices that are not there, so that both have the same
step.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_conflict, build_objective, build_uncertainty
from amopo_jax.lora import Split, split_params, with_base
from amopo_jax.metrics import MetricSums
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.score import ScoreFn
from amopo_jax.models.transformer import abstract_params
from amopo_jax.objective import Conflict, Objective, Uncertainty
from amopo_jax.optim import kept_on_host, make_optimizer, make_schedule
from amopo_jax.run_spec import RunSpec
from amopo_jax.state import TrainState, abstract_state
from amopo_jax.step import StepMetrics, jit_train_step, make_eval_step, make_moments_step, make_train_step
from amopo_jax.types import InputError, ResponseMoments


class StepParts(NamedTuple):
  """All of a step that does not depend on how long the run is.

  Attributes:
    spec: the config.
    mesh: devices.
    attention: name of the backend that runs, `auto` resolved.
    score_fn: of the policy, on the mesh.
    objective: of the config.
    conflict: how the contexts' gradients become one; None: by their sum.
    uncertainty: the objective where its weights are learned; None where they are not.
    placed: sharding of each parameter of the whole policy.
    split: what of it is trained, and what is frozen.
  """

  spec: RunSpec
  mesh: Mesh
  attention: str
  score_fn: ScoreFn
  objective: Objective
  conflict: Conflict | None
  uncertainty: Uncertainty | None
  placed: Any
  split: Split


class BuiltStep(NamedTuple):
  """The step of a run of some length.

  Attributes:
    tx: optimizer.
    target: abstract state with its shardings.
    train_step: jitted; its last argument are the parameters of the frozen base, None without one.
  """

  tx: optax.GradientTransformation
  target: TrainState
  train_step: Callable[..., tuple[TrainState, StepMetrics]]


def build_parts(
  spec: RunSpec,
  config: ModelConfig,
  mesh: Mesh,
  num_contexts: int,
  *,
  rows: tuple[int, int] = (0, 0),
  block_logits: int | None = None,
) -> StepParts:
  """Checks and builds what the config alone determines.

  Args:
    spec: the config.
    config: the decoder.
    mesh: of `build.build_mesh`.
    num_contexts: K.
    rows: R and S of a micro-batch that it trains on; zeros where nothing is run.
    block_logits: most logits that the output head computes at a time; None: what suits the devices, as in every run.

  Raises:
    InputError: a name, a number or a split that cannot be.
  """
  parts = spec.batch.accumulation * meshes.row_shards(mesh)
  objective = build_objective(spec.objective, num_contexts, parts=parts)
  conflict = build_conflict(spec.objective, num_contexts)
  uncertainty = build_uncertainty(spec.objective, num_contexts, parts=parts)
  rows = (0, 0) if conflict else rows  # the room for kept logits is for one backward pass
  attention = build.build_attention(spec.model, config, mesh)
  score_fn = build.build_score_fn(
    spec.model, config, num_contexts, mesh, rows=rows, block_logits=block_logits, attend=attention.attend
  )
  build_optimizer(spec, 1)
  placed, split = place_params(spec, config, mesh)
  return StepParts(spec, mesh, attention.name, score_fn, objective, conflict, uncertainty, placed, split)


def place_params(spec: RunSpec, config: ModelConfig, mesh: meshes.AnyMesh) -> tuple[Any, Split]:
  """Shardings of the whole policy's parameters, and what of them is trained; the mesh may be abstract."""
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  placed = build.param_shardings(spec, abstract_params(config, dtype), mesh)
  return placed, split_params(spec.lora, config, dtype, placed)


def storing_mesh(spec: RunSpec, config: ModelConfig) -> Mesh:
  """A mesh of all devices that a run's parameters divide over, however many it was trained on: to load and write them.

  Args:
    spec: the config, whose own mesh does not count.
    config: the decoder.

  Returns:
    As large a part of each slice as can be along `fsdp`; the rest hold copies.
  """
  slices = meshes.count_slices()
  each = jax.device_count() // slices
  for fsdp in (size for size in range(each, 1, -1) if each % size == 0):
    mesh = meshes.make_mesh(data=-1, fsdp=fsdp, tensor=1, slices=slices)
    with contextlib.suppress(InputError):
      place_params(spec, config, mesh)
      return mesh
  return meshes.make_mesh(data=-1, fsdp=1, tensor=1, slices=slices)


def build_step(parts: StepParts, num_steps: int) -> BuiltStep:
  """The state and the step; nothing is computed.

  Args:
    parts: of `build_parts`.
    num_steps: that the schedule is made for.
  """
  tx, schedule = build_optimizer(parts.spec, num_steps)
  target = place_state(parts.spec, parts.split, parts.mesh, tx)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
  make = lambda score_fn: make_train_step(
    score_fn, parts.objective, tx, schedule, conflict=parts.conflict, uncertainty=parts.uncertainty
  )
  step = with_base(make, parts.score_fn, parts.split.join)
  return BuiltStep(tx, target, jit_train_step(step, shardings, parts.mesh))


def evaluation(parts: StepParts) -> Callable[..., MetricSums]:
  """The evaluation step, not jitted; its last argument is as that of the train step."""
  make = lambda score_fn: make_eval_step(score_fn, parts.objective)
  return with_base(make, parts.score_fn, parts.split.join)


def scoring(parts: StepParts) -> Callable[..., ResponseMoments]:
  """The moments of a batch, not jitted; its last argument is as that of the train step."""
  return with_base(make_moments_step, parts.score_fn, parts.split.join)


def place_state(spec: RunSpec, split: Split, mesh: meshes.AnyMesh, tx: optax.GradientTransformation) -> TrainState:
  """The abstract state of what is trained, each array with its sharding.

  Args:
    spec: the config.
    split: of `place_params`.
    mesh: may be of sizes alone.
    tx: optimizer.
  """
  learned = len(spec.data.contexts) if spec.objective.uncertainty_rate else 0
  state = abstract_state(split.params, tx, seed=spec.seed, learned_contexts=learned)
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  shardings = meshes.state_shardings(state, split.params, split.placed, mesh, offload=spec.optim.offload)
  return jax.tree.map(put, state, shardings)


def build_optimizer(spec: RunSpec, num_steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimizer and the schedule that it follows."""
  o = spec.optim
  schedule = make_schedule(o.schedule, peak=o.learning_rate, steps=num_steps, warmup_fraction=o.warmup_fraction)
  tx = make_optimizer(
    o.name,
    schedule,
    clip=o.clip,
    weight_decay=o.weight_decay,
    b1=o.b1,
    b2=o.b2,
    eps=o.eps,
    mu_dtype=o.mu_dtype,
  )
  return kept_on_host(tx) if o.offload else tx, schedule
