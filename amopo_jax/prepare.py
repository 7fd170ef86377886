"""Everything before the first step: check, then build, then write, then start or resume, in this order.

`prepare` looks at all that a run is made of and writes nothing, so that a mistake leaves an existing workdir as it
was. Only `open_workdir` writes, and only `start_or_resume` computes.
"""

import dataclasses
import importlib.util
import json
import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from amopo_jax import build, build_data, processes
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import check_drawn, layout_used
from amopo_jax.build_step import BuiltStep, StepParts, build_parts, build_step, evaluation, scoring
from amopo_jax.checkpoint import Checkpoints, Restored
from amopo_jax.data.collate import count_pairs
from amopo_jax.data.pipeline import Stream, make_stream
from amopo_jax.feed import FeedSpec
from amopo_jax.load import load_base, load_policy
from amopo_jax.lora import Base, start_adapters
from amopo_jax.metrics import MetricSums, metric_names
from amopo_jax.models.hf_config import to_hf
from amopo_jax.policy import (
  MODEL_FOLDER,
  RUN_FILE,
  PolicySource,
  RunRecord,
  find_policy,
  write_atomically,
  write_run,
)
from amopo_jax.remote import write_folder
from amopo_jax.resume import check_tokenizer, matching_record
from amopo_jax.run_spec import RunSpec, check_name
from amopo_jax.state import TrainState, init_state
from amopo_jax.step import StepMetrics
from amopo_jax.stopping import tell
from amopo_jax.types import InputError

_SAMPLED_STEPS = 16
"""Steps that are packed to estimate how many make an epoch."""


class Run(NamedTuple):
  """A checked run.

  Attributes:
    spec: its config.
    source: of the initial policy.
    data: pairs, tokenizer, contexts.
    mesh: devices.
    attention: name of the backend that runs.
    feed: how the data come onto them.
    num_steps: steps that the schedule is made for; exact where the config names them.
    target: abstract state with its shardings.
    init: () -> the state before the first step.
    load_base: () -> the frozen base.
    train_step, eval_step: jitted; their last argument is what `load_base` gives, None without a base.
    score_step: (params, batch, base) -> numbers of the pairs, and the sums of log-probabilities; likewise.
  """

  spec: RunSpec
  source: PolicySource
  data: build_data.Data
  mesh: Mesh
  attention: str
  feed: FeedSpec
  num_steps: int
  target: TrainState
  init: Callable[[], TrainState]
  load_base: Callable[[], Base]
  train_step: Callable[..., tuple[TrainState, StepMetrics]]
  eval_step: Callable[..., MetricSums]
  score_step: Callable[..., tuple[jax.Array, jax.Array]]


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
  num_contexts = len(build_data.plan_data(spec).contexts.contexts)
  rows = (spec.batch.rows // spec.batch.accumulation, spec.batch.row_length) if workdir else (0, 0)
  parts = build_parts(spec, source.config, mesh, num_contexts, rows=rows)
  record = matching_record(spec, workdir)  # after the config alone, whose typing errors have better messages
  feed = build.build_feed_spec(spec, mesh)
  check_drawn(spec.objective, spec.data.contexts_per_pair)
  layout = dataclasses.replace(layout_used(spec.objective), contexts=spec.data.contexts_per_pair)
  data = build_data.build_data(spec, source, layout=layout)
  check_tokenizer(record, data.tokenizer, workdir)
  num_steps = record.num_steps if record else _count_steps(spec, data)
  step = build_step(parts, num_steps)
  eval_step = meshes.jit_for(mesh, evaluation(parts), out_shardings=meshes.replicated(mesh))
  dtype = build.dtype("config.model.param_dtype", spec.model.param_dtype)
  base = partial(load_base, source, parts.split, spec.lora, dtype=dtype, placed=parts.placed, seed=spec.seed)
  init = _initializer(parts, step, source)
  moments = scoring(parts)
  sums = lambda params, batch, base: (batch.index, moments(params, batch, base).sum_logp)
  steps = step.train_step, eval_step, meshes.jit_for(mesh, sums, out_shardings=meshes.replicated(mesh))
  return Run(spec, source, data, mesh, parts.attention, feed, num_steps, step.target, init, base, *steps)


def identify(run: Run) -> dict[str, Any]:
  """What must be the same in every process of a run, as far as a glance shows."""
  return {
    "jax": jax.__version__,
    "model": run.source.hf_config,
    "tokenizer": run.data.tokenizer.fingerprint,
    "records": {name: found.num_records for name, found in run.data.surveys.items()},
    "pairs": {name: zlib.crc32(found.table.tobytes()) for name, found in run.data.surveys.items()},
    "texts": {name: found.content for name, found in run.data.surveys.items()},
    "steps": run.num_steps,
  }


def open_workdir(run: Run, workdir: str) -> Checkpoints:
  """Writes the run's record and model description into a new workdir; leaves those of an old one alone.

  Raises:
    InputError: this process does not see what the first one wrote.
  """
  if jax.process_index() == 0:
    _write_record(run, workdir)
  processes.meet()
  if not (epath.Path(workdir) / RUN_FILE).exists():
    raise InputError(
      f"{workdir}: process {jax.process_index()} does not see what process 0 wrote there; all processes need the same "
      "folder, on a shared disk or gs://"
    )
  loop = run.spec.train
  best = {"best_metric": loop.best_metric, "best_is_highest": loop.best_is_highest}
  return Checkpoints(workdir, keep=loop.keep, **best, failed=_end_all, from_first=processes.from_first)


def _end_all(line: str) -> None:
  if processes.is_several():
    tell(line)
    processes.stop_others(line, 1)


def _write_record(run: Run, workdir: str) -> None:
  if not (epath.Path(workdir) / RUN_FILE).exists():
    model = epath.Path(workdir) / MODEL_FOLDER
    end_of_turn = int(run.data.tokenizer.end[-1])
    from_scratch = to_hf(run.source.config, eos_token_id=end_of_turn)
    hf_config = run.source.hf_config if run.source.path else from_scratch
    write_atomically(model / "config.json", json.dumps(hf_config, indent=1) + "\n")
    write_folder(str(model), run.data.tokenizer.save)
    write_run(workdir, RunRecord(run.spec, run.num_steps, run.data.tokenizer.fingerprint))


def start_or_resume(run: Run, checkpoints: Checkpoints) -> Restored:
  """The newest checkpoint, or the initial state as step 0 with empty metadata."""
  return checkpoints.restore(run.target) or Restored(0, run.init(), {})


def _initializer(parts: StepParts, step: BuiltStep, source: PolicySource) -> Callable[[], TrainState]:
  seed, split = parts.spec.seed, parts.split
  shardings = jax.tree.map(lambda leaf: leaf.sharding, step.target)
  learned = 0 if step.target.log_variances is None else len(step.target.log_variances)

  def init() -> TrainState:
    if split.base is None:
      dtype = build.dtype("config.model.param_dtype", parts.spec.model.param_dtype)
      loaded = load_policy(source, dtype=dtype, shardings=split.placed, seed=seed)
    else:
      loaded = start_adapters(parts.spec.lora, source.config, split, seed=seed)
    make = jax.jit(
      lambda p: init_state(p, step.tx, seed=seed, learned_contexts=learned), out_shardings=shardings, donate_argnums=0
    )
    return make(loaded)

  return init


def _check_loop(spec: RunSpec) -> None:
  if not (spec.train.steps or spec.train.epochs):
    raise InputError("config.train: neither steps nor epochs is positive; set one of them")
  if not 0 <= spec.train.hang_minutes < math.inf:
    raise InputError(
      f"config.train.hang_minutes: {spec.train.hang_minutes} is not a number of minutes; 0 waits for ever"
    )
  if spec.train.best_metric:
    names = metric_names(tuple(spec.data.contexts), prefix="eval_")
    check_name("config.train.best_metric", spec.train.best_metric, names)
  if spec.train.wandb_project and importlib.util.find_spec("wandb") is None:
    raise InputError("config.train.wandb_project: the package wandb is not installed; pip install wandb")


def _count_steps(spec: RunSpec, data: build_data.Data) -> int:
  """Steps of the run: as configured, or so many epochs by the pairs that the first steps take."""
  if spec.train.steps:
    return spec.train.steps
  stream = train_stream(spec, data, range(build_data.num_streams(spec.batch)), num_workers=0)
  counts = []
  for groups in stream:
    counts.append(count_pairs(groups))
    if len(counts) == _SAMPLED_STEPS:
      break
  else:
    return len(counts)
  total = spec.train.epochs * sum(len(dataset) for dataset in data.train)
  return max(len(counts), math.ceil(total / float(np.mean(counts))))


def train_stream(spec: RunSpec, data: build_data.Data, owned: Sequence[int], *, num_workers: int) -> Stream:
  """The stream of training groups: endless where the config names steps, else so many epochs."""
  return make_stream(
    data.train,
    data.pack,
    seed=spec.seed,
    num_epochs=None if spec.train.steps else spec.train.epochs,
    num_streams=build_data.num_streams(spec.batch),
    owned=owned,
    num_workers=num_workers,
    shuffle=spec.data.shuffle,
    weights=data.weights,
  )
