"""A run as frozen dataclasses: what a config says, field by field and without defaults.

`configs/base.py` explains every key; here is their type. `run_codec.py` turns dicts into a `RunSpec` and back.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from amopo_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  path: str
  arch: Mapping[str, Any]
  param_dtype: str
  compute_dtype: str
  remat: str
  attention: str
  attention_chunk: int
  head_chunk: int
  head_keep: float
  unroll: int


@dataclasses.dataclass(frozen=True)
class LoraSpec:
  rank: int
  alpha: float
  base_dtype: str
  targets: str


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  path: str
  format: str
  weight: float


@dataclasses.dataclass(frozen=True)
class ContextEntry:
  dimension: str
  template: str
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class DataSpec:
  train: Mapping[str, SourceSpec]
  heldout: Mapping[str, SourceSpec]
  heldout_fraction: float
  split_seed: int
  tokenizer: str
  contexts: Mapping[str, ContextEntry]
  contexts_per_pair: int
  place: str
  rule: str
  on_error: str
  too_long: str
  max_length: int
  max_response: int
  shuffle: bool
  workers: int
  template_kwargs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class BatchSpec:
  rows: int
  row_length: int
  group_rows: int
  max_pairs: int
  accumulation: int


@dataclasses.dataclass(frozen=True)
class ObjectiveSpec:
  name: str
  beta: float
  target_margin: float
  alpha: str
  fixed_alpha: tuple[float, ...]
  ties: str
  gap_margin: float
  sft_weight: float
  ratio_weight: float
  length_weight: float
  conflict_radius: float
  per_turn: bool
  loss_power: float
  gap_power: float
  uncertainty_rate: float


@dataclasses.dataclass(frozen=True)
class OptimSpec:
  name: str
  learning_rate: float
  schedule: str
  warmup_fraction: float
  clip: float
  weight_decay: float
  b1: float
  b2: float
  eps: float
  mu_dtype: str
  offload: bool


@dataclasses.dataclass(frozen=True)
class MeshSpec:
  data: int
  fsdp: int
  context: int
  tensor: int
  slices: int
  rules: tuple


@dataclasses.dataclass(frozen=True)
class LoopSpec:
  epochs: int
  steps: int
  log_every: int
  eval_every: int
  save_every: int
  keep: int
  best_metric: str
  best_is_highest: bool
  tensorboard: bool
  wandb_project: str
  hang_minutes: float


@dataclasses.dataclass(frozen=True)
class RunSpec:
  """All of a run but its workdir; the sections of a config, see `configs/base.py`."""

  seed: int
  model: ModelSpec
  lora: LoraSpec
  data: DataSpec
  batch: BatchSpec
  objective: ObjectiveSpec
  optim: OptimSpec
  mesh: MeshSpec
  train: LoopSpec


AT_LEAST = {
  "config.seed": 0,
  "config.model.attention_chunk": 1,
  "config.model.head_chunk": 1,
  "config.model.head_keep": 0,
  "config.model.unroll": 1,
  "config.lora.rank": 0,
  "config.data.split_seed": 0,
  "config.data.max_length": 0,
  "config.data.max_response": 0,
  "config.data.workers": 0,
  "config.batch.rows": 1,
  "config.batch.row_length": 1,
  "config.batch.group_rows": 1,
  "config.batch.max_pairs": 0,
  "config.batch.accumulation": 1,
  "config.objective.target_margin": 0,
  "config.objective.gap_margin": 0,
  "config.objective.sft_weight": 0,
  "config.objective.ratio_weight": 0,
  "config.objective.length_weight": 0,
  "config.optim.learning_rate": 0,
  "config.optim.clip": 0,
  "config.optim.weight_decay": 0,
  "config.mesh.slices": 1,
  "config.train.epochs": 0,
  "config.train.steps": 0,
  "config.train.log_every": 1,
  "config.train.eval_every": 0,
  "config.train.save_every": 0,
  "config.train.keep": 1,
}
"""Least values of keys; what is not a matter of one number is checked where it is used."""


def check_name(where: str, name: str, choices: Iterable[str]) -> None:
  """Refuses a name that is none of the choices.

  Args:
    where: the key, as `config.a.b`.
    name: its value.
    choices: all that there are.
  """
  choices = tuple(choices)
  if name not in choices:
    raise InputError(f"{where}: {name!r} is unknown; choose one of {', '.join(choices)}")
