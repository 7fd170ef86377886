"""A run placed on a topology, checked before anything is compiled."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jax.sharding import AbstractMesh, Mesh

from amopo_jax import build, build_data
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_conflict, build_objective
from amopo_jax.build_step import StepParts, build_optimizer, build_parts
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.transformer import REMAT
from amopo_jax.plan.changes import Overrides, override
from amopo_jax.plan.formula import formula_memory
from amopo_jax.plan.topology import Topology, abstract_devices
from amopo_jax.policy import DTYPES, find_config
from amopo_jax.run_spec import RunSpec, check_name
from amopo_jax.types import InputError


class Case(NamedTuple):
  """A run on a topology.

  Attributes:
    spec: the config as it is on this topology.
    overrides: what had to be changed for that.
    config: the decoder.
    topology: the chips.
    mesh: of abstract devices; of GPUs the sizes alone.
    parts: of the step; None for GPUs, for which nothing is compiled.
  """

  spec: RunSpec
  overrides: Overrides
  config: ModelConfig
  topology: Topology
  mesh: meshes.AnyMesh
  parts: StepParts | None

  @property
  def num_contexts(self) -> int:
    """K."""
    return len(self.spec.data.contexts)


def check_cases(spec: RunSpec, topologies: Sequence[Topology], rows_per_chip: int) -> list[Case]:
  """A run on each of several topologies; every mistake is found before the first compilation.

  Args:
    spec: the config; its data are not read.
    topologies: where.
    rows_per_chip: token rows of a micro-batch on each chip, a split over `tensor` counting as one; 0 leaves
      `config.batch.rows` as it is.

  Raises:
    InputError: whatever is wrong with the config, on any of them.
  """
  build_data.plan_data(spec)
  config = find_config(spec.model.path, dict(spec.model.arch))
  return [place(spec, config, topology, rows_per_chip) for topology in topologies]


def place(spec: RunSpec, config: ModelConfig, topology: Topology, rows_per_chip: int = 0) -> Case:
  """A run on one topology.

  Raises:
    InputError: the config cannot be there.
  """
  try:
    changes = _slices(spec, topology)
    if rows_per_chip:
      changes |= _rows(override(spec, changes), topology, rows_per_chip)
    placed = override(spec, changes)
    mesh = _mesh(placed, topology)
    num_contexts = len(placed.data.contexts)
    parts = build_parts(placed, config, mesh, num_contexts) if isinstance(mesh, Mesh) else None
    if parts is None:
      _check_step(placed, num_contexts, meshes.row_shards(mesh))
      formula_memory(placed, config, mesh)
  except InputError as error:
    remedy = "" if rows_per_chip or "rows" not in str(error) else "; --rows_per_chip=1 chooses rows for each topology"
    raise InputError(f"{topology.name}: {error}{remedy}") from None
  return Case(placed, changes, config, topology, mesh, parts)


def _check_step(spec: RunSpec, num_contexts: int, row_shards: int) -> None:
  """What building a step would have found, without devices."""
  build_objective(spec.objective, num_contexts, parts=spec.batch.accumulation * row_shards)
  build_conflict(spec.objective, num_contexts)
  build_optimizer(spec, 1)
  check_name("config.model.remat", spec.model.remat, REMAT)
  for key in ("compute_dtype", "param_dtype"):
    check_name(f"config.model.{key}", getattr(spec.model, key), DTYPES)


def _slices(spec: RunSpec, topology: Topology) -> Overrides:
  """Replicas are what slices hold: only their gradients have to cross the network."""
  changes: Overrides = {}
  if spec.mesh.data != -1 and spec.mesh.data % topology.slices:
    changes["mesh.data"] = spec.mesh.data * topology.slices
  if topology.is_tpu and spec.mesh.slices != topology.slices:
    changes["mesh.slices"] = topology.slices
  return changes


def _rows(spec: RunSpec, topology: Topology, rows_per_chip: int) -> Overrides:
  sizes = _sizes(spec, topology)
  micro = rows_per_chip * math.prod(sizes[axis] for axis in meshes.ROW_AXES)
  return {
    "batch.rows": micro * spec.batch.accumulation,
    "batch.group_rows": math.gcd(spec.batch.group_rows, micro),
    "batch.max_pairs": 0,
  }


def _mesh(spec: RunSpec, topology: Topology) -> meshes.AnyMesh:
  if topology.is_tpu:
    return build.build_mesh(spec, abstract_devices(topology))
  sizes = _sizes(spec, topology)
  mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes))
  build.check_rows(spec.batch, mesh)
  return mesh


def _sizes(spec: RunSpec, topology: Topology) -> dict[str, int]:
  m = spec.mesh
  return meshes.axis_sizes(topology.num_chips, data=m.data, fsdp=m.fsdp, context=m.context, tensor=m.tensor)
