"""A run as frozen dataclasses: the door between configs and code.

`configs/base.py` explains every key; here is their type. A config maps onto `RunSpec` field by field, in both
directions and without defaults, so that a mistyped or missing key is found by name before anything starts, and
`<workdir>/run.json` can be turned back into the run.
"""

import dataclasses
import json
import typing
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
  attention_chunk: int
  head_chunk: int


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
  tokenizer: str
  contexts: Mapping[str, ContextEntry]
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


@dataclasses.dataclass(frozen=True)
class MeshSpec:
  data: int
  fsdp: int
  tensor: int
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


@dataclasses.dataclass(frozen=True)
class RunSpec:
  """All of a run but its workdir; the sections of a config, see `configs/base.py`."""

  seed: int
  model: ModelSpec
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
  "config.optim.learning_rate": 0,
  "config.optim.clip": 0,
  "config.optim.weight_decay": 0,
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


def from_dict(values: Mapping[str, Any]) -> RunSpec:
  """A run from the nested dict of a config.

  Raises:
    InputError: a key is missing, unknown, of the wrong type or too small; the message names it as `config.a.b`.
  """
  spec = _build(RunSpec, values, "config")
  flat = _flatten(dataclasses.asdict(spec), "config")
  for key, least in AT_LEAST.items():
    if not flat[key] >= least:  # NaN is not either
      raise InputError(f"{key}: {flat[key]} cannot be; the least is {least}")
  return spec


def to_dict(spec: RunSpec) -> dict[str, Any]:
  """Plain JSON-able dict, the inverse of `from_dict`."""
  return json.loads(json.dumps(dataclasses.asdict(spec)))


def difference(a: RunSpec, b: RunSpec) -> list[str]:
  """Keys in which two runs differ, as `config.a.b: 1 != 2`; the order of contexts and of sources counts too."""
  flat_a, flat_b = (_flatten(to_dict(spec), "config") for spec in (a, b))
  keys = sorted(set(flat_a) | set(flat_b))
  show = lambda flat, key: flat.get(key, "(absent)")
  values = [
    f"{key}: {show(flat_a, key)} != {show(flat_b, key)}" for key in keys if show(flat_a, key) != show(flat_b, key)
  ]
  return values or [
    f"config.data.{name}: {', '.join(x)} != {', '.join(y)} (another order)"
    for name in ("contexts", "train", "heldout")
    if (x := list(getattr(a.data, name))) != (y := list(getattr(b.data, name)))
  ]


def _build(kind: Any, value: Any, where: str) -> Any:
  origin = typing.get_origin(kind)
  if dataclasses.is_dataclass(kind):
    return _build_dataclass(kind, value, where)
  if origin is not None and issubclass(origin, Mapping):
    inner = typing.get_args(kind)[1]
    _expect(isinstance(value, Mapping), where, "a ConfigDict", value)
    return {str(k): _build(inner, v, f"{where}.{k}") for k, v in value.items()}
  if origin is tuple or kind is tuple:
    _expect(isinstance(value, tuple | list), where, "a tuple", value)
    inner = typing.get_args(kind)[:1]
    return tuple(_build(inner[0], v, where) if inner else _tuples(v) for v in value)
  if kind is Any:
    return value
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  _expect(isinstance(value, kind) and (kind is not int or not isinstance(value, bool)), where, kind.__name__, value)
  return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
  _expect(isinstance(value, Mapping), where, "a ConfigDict", value)
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(value) - set(hints))
  missing = [name for name in hints if name not in value]
  if unknown:
    raise InputError(f"{where}.{unknown[0]}: unknown key; the keys are {', '.join(hints)}")
  if missing:
    raise InputError(f"{where}.{missing[0]}: missing key; configs/base.py says what it means")
  return kind(**{name: _build(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _expect(holds: bool, where: str, wanted: str, value: Any) -> None:
  if not holds:
    raise InputError(f"{where}: expected {wanted}, found {value!r} ({type(value).__name__})")


def _tuples(value: Any) -> Any:
  return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _flatten(value: Any, where: str) -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {where: value}
  return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{where}.{name}").items()}
