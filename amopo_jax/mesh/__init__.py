"""Devices as a mesh of four axes, and where arrays lie on it (docs/parallelism.md).

data     replicas of the parameters; each sees other rows; the slices of a multi-slice job differ in it
fsdp     rows and parameters are split; parameters are gathered where they are used
context  the tokens of every row are split, and parameters as over fsdp
tensor   heads, MLP columns and vocabulary are split
"""

from amopo_jax.mesh.activations import (
  WHOLE,
  Share,
  apart,
  batch_shardings,
  check_batch,
  each_has_all,
  make_constrain,
  place_batch,
  split_attention,
)
from amopo_jax.mesh.devices import (
  AXES,
  ROW_AXES,
  AnyMesh,
  ask_for_cpu_devices,
  axis_sizes,
  count_slices,
  give_virtual_devices_threads,
  jit_for,
  make_mesh,
  replicated,
  row_shards,
  vocab_shards,
)
from amopo_jax.mesh.shardings import (
  DEFAULT_RULES,
  HOST,
  Rules,
  check_rules,
  param_shardings,
  path_name,
  state_shardings,
)

__all__ = [
  "AXES",
  "DEFAULT_RULES",
  "HOST",
  "ROW_AXES",
  "WHOLE",
  "AnyMesh",
  "Rules",
  "Share",
  "apart",
  "ask_for_cpu_devices",
  "axis_sizes",
  "batch_shardings",
  "check_batch",
  "check_rules",
  "count_slices",
  "each_has_all",
  "give_virtual_devices_threads",
  "jit_for",
  "make_constrain",
  "make_mesh",
  "param_shardings",
  "path_name",
  "place_batch",
  "replicated",
  "row_shards",
  "split_attention",
  "state_shardings",
  "vocab_shards",
]
