"""Everything before the first step: check, then build, then write, then start or resume, in this order.

`prepare` looks at all that a run is made of and writes nothing, so that a mistake leaves an existing workdir as it
was. Only `open_workdir` writes, and only `start_or_resume` computes.
"""

import importlib.util
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_objective
from amopo_jax.checkpoint import Checkpoints, Restored
from amopo_jax.data.collate import count_pairs
from amopo_jax.data.pipeline import make_stream
from amopo_jax.metrics import MetricSums, metric_names
from amopo_jax.models.hf_config import to_hf
from amopo_jax.models.transformer import abstract_params
from amopo_jax.optim import make_optimizer, make_schedule
from amopo_jax.policy import (
  MODEL_FOLDER,
  RUN_FILE,
  PolicySource,
  RunRecord,
  find_policy,
  load_policy,
  read_run,
  write_atomically,
  write_run,
)
from amopo_jax.remote import write_folder
from amopo_jax.run_codec import difference
from amopo_jax.run_spec import RunSpec, check_name
from amopo_jax.state import TrainState, abstract_state, init_state
from amopo_jax.step import TrainStep, jit_train_step, make_eval_step, make_train_step
from amopo_jax.types import Batch, InputError, Params

FREE_TO_CHANGE = (
  "config.mesh.",
  "config.batch.accumulation",
  "config.data.workers",
  "config.model.remat",
  "config.model.attention",
  "config.model.attention_chunk",
  "config.model.head_chunk",
  "config.model.head_keep",
  "config.model.unroll",
  "config.train.log_every",
  "config.train.eval_every",
  "config.train.save_every",
  "config.train.keep",
  "config.train.tensorboard",
  "config.train.wandb_project",
)
"""Keys that a resumed run may change: they do not change what is computed, only where, when and how it is shown."""

_SAMPLED_STEPS = 16
"""Steps that are packed to estimate how many make an epoch."""


class Run(NamedTuple):
  """A checked run.

  Attributes:
    spec: its config.
    source: of the initial policy.
    data: pairs, tokenizer, contexts.
    mesh: devices.
    num_steps: steps that the schedule is made for; exact where the config names them.
    target: abstract state with its shardings.
    init: () -> the state before the first step.
    train_step, eval_step: jitted.
  """

  spec: RunSpec
  source: PolicySource
  data: build.Data
  mesh: Mesh
  num_steps: int
  target: TrainState
  init: Callable[[], TrainState]
  train_step: TrainStep
  eval_step: Callable[[Params, Batch], MetricSums]


def prepare(spec: RunSpec, workdir: str | None) -> Run:
  """Checks and builds a run; writes nothing and compiles nothing.

  Args:
    spec: the config.
    workdir: new, or that of the same run; None where nothing is to be started.

  Raises:
    InputError: anything that is wrong with the config, the model, the data or the workdir.
  """
  _check_loop(spec)
  mesh = build.build_mesh(spec)
  source = find_policy(spec.model.path, dict(spec.model.arch))
  num_contexts = len(build.plan_data(spec).contexts.contexts)
  parts = spec.batch.accumulation * meshes.row_shards(mesh)
  objective = build_objective(spec.objective, num_contexts, parts=parts)
  rows = (spec.batch.rows // spec.batch.accumulation, spec.batch.row_length) if workdir else (0, 0)
  score_fn = build.build_score_fn(spec.model, source.config, num_contexts, mesh, rows=rows)
  build_optimizer(spec, 1)
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  placed = build.param_shardings(spec, abstract_params(source.config, dtype), mesh)
  record = _matching_record(spec, workdir)  # after the config alone, whose typing errors have better messages
  data = build.build_data(spec, source)
  _check_fingerprint(record, data, workdir)
  num_steps = record.num_steps if record else _count_steps(spec, data)
  tx, schedule = build_optimizer(spec, num_steps)
  target, init = _state_maker(spec.seed, source, mesh, tx, dtype=dtype, placed=placed)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
  train_step = jit_train_step(make_train_step(score_fn, objective, tx, schedule), shardings, mesh)
  eval_step = meshes.jit_for(mesh, make_eval_step(score_fn, objective), out_shardings=meshes.replicated(mesh))
  return Run(spec, source, data, mesh, num_steps, target, init, train_step, eval_step)


def open_workdir(run: Run, workdir: str) -> Checkpoints:
  """Writes the run's record and model description into a new workdir; leaves those of an old one alone."""
  if not (epath.Path(workdir) / RUN_FILE).exists():
    model = epath.Path(workdir) / MODEL_FOLDER
    end_of_turn = int(run.data.tokenizer.end[-1])
    from_scratch = to_hf(run.source.config, eos_token_id=end_of_turn)
    hf_config = run.source.hf_config if run.source.path else from_scratch
    write_atomically(model / "config.json", json.dumps(hf_config, indent=1) + "\n")
    write_folder(str(model), run.data.tokenizer.save)
    write_run(workdir, RunRecord(run.spec, run.num_steps, run.data.tokenizer.fingerprint))
  loop = run.spec.train
  return Checkpoints(workdir, keep=loop.keep, best_metric=loop.best_metric, best_is_highest=loop.best_is_highest)


def start_or_resume(run: Run, checkpoints: Checkpoints) -> Restored:
  """The newest checkpoint, or the initial state as step 0 with empty metadata."""
  restored = checkpoints.restore(run.target)
  return restored if restored else Restored(0, run.init(), {})


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
  return tx, schedule


def _state_maker(
  seed: int, source: PolicySource, mesh: Mesh, tx: optax.GradientTransformation, *, dtype: Any, placed: Any
) -> tuple[TrainState, Callable[[], TrainState]]:
  params = abstract_params(source.config, dtype)
  abstract = abstract_state(params, tx, seed=seed)
  shardings = meshes.state_shardings(abstract, params, placed, mesh)

  def init() -> TrainState:
    loaded = load_policy(source, dtype=dtype, shardings=placed, seed=seed)
    make = jax.jit(lambda p: init_state(p, tx, seed=seed), out_shardings=shardings, donate_argnums=0)
    return make(loaded)

  target = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    abstract,
    shardings,
  )
  return target, init


def _check_loop(spec: RunSpec) -> None:
  if not (spec.train.steps or spec.train.epochs):
    raise InputError("config.train: neither steps nor epochs is positive; set one of them")
  if spec.train.best_metric:
    names = metric_names(tuple(spec.data.contexts), prefix="eval_")
    check_name("config.train.best_metric", spec.train.best_metric, names)
  if spec.train.wandb_project and importlib.util.find_spec("wandb") is None:
    raise InputError("config.train.wandb_project: the package wandb is not installed; pip install wandb")


def _matching_record(spec: RunSpec, workdir: str | None) -> RunRecord | None:
  if workdir is None or not (epath.Path(workdir) / RUN_FILE).exists():
    return None
  record = read_run(workdir)
  changed = [line for line in difference(record.spec, spec) if not line.startswith(FREE_TO_CHANGE)]
  if changed:
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise InputError(
      f"{workdir}: belongs to a run of another config: {changed[0]}{more}; use another --workdir, or that config"
    )
  return record


def _check_fingerprint(record: RunRecord | None, data: build.Data, workdir: str | None) -> None:
  if record and record.fingerprint != data.tokenizer.fingerprint:
    raise InputError(
      f"{workdir}: was begun with another tokenizer than {data.tokenizer.name}; use that one, or a new workdir"
    )


def _count_steps(spec: RunSpec, data: build.Data) -> int:
  """Steps of the run: as configured, or so many epochs by the pairs that the first steps take."""
  if spec.train.steps:
    return spec.train.steps
  stream = train_stream(spec, data, num_workers=0)
  counts = []
  for groups in stream:
    counts.append(count_pairs(groups))
    if len(counts) == _SAMPLED_STEPS:
      break
  else:
    return len(counts)
  total = spec.train.epochs * sum(len(dataset) for dataset in data.train)
  return max(len(counts), math.ceil(total / float(np.mean(counts))))


def train_stream(spec: RunSpec, data: build.Data, *, num_workers: int) -> Any:
  """The stream of training groups: endless where the config names steps, else so many epochs."""
  streams = build.num_streams(spec.batch)
  return make_stream(
    data.train,
    data.pack,
    seed=spec.seed,
    num_epochs=None if spec.train.steps else spec.train.epochs,
    num_streams=streams,
    owned=range(streams),
    num_workers=num_workers,
    shuffle=spec.data.shuffle,
    weights=data.weights,
  )
