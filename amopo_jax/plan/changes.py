"""Changes of a config that need less memory, from cheap to dear.

First those that leave the result as it is: parameters split instead of copied, recomputing more, fewer rows on the
chips at a time, the optimizer's state on the hosts, splitting layers as well as rows. Then those that change what is
computed: types of the state, the optimizer, fewer rows in a step, adapters on a frozen base.
"""

from collections.abc import Mapping
from typing import Any

from amopo_jax.run_codec import from_dict, to_dict
from amopo_jax.run_spec import RunSpec

Overrides = dict[str, Any]
"""Key of a config without `config.`, such as `model.remat` -> value."""

_TENSOR_SPLITS = (2, 4, 8)


def override(spec: RunSpec, overrides: Mapping[str, Any]) -> RunSpec:
  """The config with other values.

  Raises:
    InputError: an unknown key, or a value that it cannot have.
  """
  values = to_dict(spec)
  for key, value in overrides.items():
    section, name = key.split(".")
    values[section][name] = value
  return from_dict(values)


def free_changes(spec: RunSpec, row_shards: int) -> list[Overrides]:
  """What leaves the result as it is: one after the other, all together, with the optimizer's state on the hosts, and
  with layers split as well.

  Args:
    spec: the config.
    row_shards: in how many parts its rows are split.
  """
  together, most = least_memory(spec, row_shards), most_accumulation(spec, row_shards)
  whole = sharded(spec)
  splits = []
  for split in _TENSOR_SPLITS:
    if row_shards % split == 0:
      more = {"batch.accumulation": most * split} if _divides(spec, most * split, row_shards // split) else {}
      splits.append(together | {"mesh.tensor": spec.mesh.tensor * split} | more | _changing(spec, {"mesh.fsdp": -1}))
  on_hosts = together | _changing(spec, {"optim.offload": True})
  singles = [whole, *({key: value} for key, value in together.items() if key not in whole)]
  return _distinct([*singles, together, on_hosts, *splits])


def least_memory(spec: RunSpec, row_shards: int) -> Overrides:
  """All that saves memory on the same mesh without another result."""
  most = most_accumulation(spec, row_shards)
  return sharded(spec) | _changing(spec, {"model.head_keep": 0.0, "model.remat": "full", "batch.accumulation": most})


def sharded(spec: RunSpec) -> Overrides:
  """Parameters split over all chips of a slice instead of copied."""
  return {"mesh.data": spec.mesh.slices, "mesh.fsdp": -1} if spec.mesh.data != spec.mesh.slices else {}


def on_all_chips(spec: RunSpec, slices: int, context: int) -> Overrides:
  """The mesh of a topology with more chips: parameters split over all of a slice, whatever stood in the config.

  Args:
    spec: the config.
    slices: of the topology.
    context: parts of a row's tokens.
  """
  return _changing(spec, {"mesh.data": slices, "mesh.fsdp": -1, "mesh.context": context, "mesh.slices": slices})


def most_accumulation(spec: RunSpec, row_shards: int) -> int:
  """The most micro-batches that a step can be cut into."""
  return max(count for count in range(1, spec.batch.rows + 1) if count == 1 or _divides(spec, count, row_shards))


def state_changes(spec: RunSpec, row_shards: int) -> list[Overrides]:
  """Less state, or fewer rows in a step.

  Args:
    spec: the config.
    row_shards: in how many parts its rows are split.
  """
  half_mean = {"optim.mu_dtype": "bfloat16"} if spec.optim.name != "adafactor" else {}
  halves = {"model.param_dtype": "bfloat16"}
  factored = _changing(
    spec, {"optim.name": "adafactor", "optim.b1": 0.9, "optim.b2": 0.999, "optim.eps": 1e-8, "optim.mu_dtype": ""}
  )
  one_row = {"batch.rows": row_shards, "batch.group_rows": row_shards, "batch.accumulation": 1, "batch.max_pairs": 0}
  fewer = one_row if row_shards < spec.batch.rows // spec.batch.accumulation else {}
  return _distinct([half_mean, halves, factored, factored | halves, fewer, fewer | halves, fewer | factored | halves])


def adapter_changes(spec: RunSpec) -> list[Overrides]:
  """Low-rank adapters on a frozen base, in ever smaller types."""
  rank = spec.lora.rank or 16
  return [{"lora.rank": rank, "lora.base_dtype": base} for base in ("bfloat16", "int8", "nf4")]


def _divides(spec: RunSpec, micros: int, row_shards: int) -> bool:
  groups = spec.batch.rows // spec.batch.group_rows
  return groups % micros == 0 and spec.batch.rows // micros % row_shards == 0


def _changing(spec: RunSpec, wanted: Overrides) -> Overrides:
  return {key: value for key, value in wanted.items() if _value(spec, key) != value}


def _distinct(changes: list[Overrides]) -> list[Overrides]:
  return [change for number, change in enumerate(changes) if change and change not in changes[:number]]


def _value(spec: RunSpec, key: str) -> Any:
  section, name = key.split(".")
  return getattr(getattr(spec, section), name)
