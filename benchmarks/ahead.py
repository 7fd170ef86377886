"""The real train step of a config, compiled for a TPU that is not there."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from amopo_jax import build
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_objective
from amopo_jax.models import head
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.transformer import abstract_params
from amopo_jax.prepare import build_optimizer
from amopo_jax.run_spec import RunSpec
from amopo_jax.state import abstract_state
from amopo_jax.step import jit_train_step, make_train_step
from amopo_jax.types import Batch, PackedRows, PairInfo

_ALL = 1 << 62
"""More logits than there are: the head's loop over words has one turn."""

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (?P<result>.*?) (?:{_KINDS})(?P<start>-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def compile_step(spec: RunSpec, devices: Sequence[Any], *, num_contexts: int, pairs: int) -> jax.stages.Compiled:
  """The train step of a config with a new model, split over devices as the config's mesh says.

  Args:
    spec: the config; its data are not read.
    devices: abstract or real.
    num_contexts: K.
    pairs: places for pairs in a step.
  """
  mesh = build.build_mesh(spec, devices)
  config = from_hf(spec.model.arch, "config.model.arch")
  params = abstract_params(config, build.dtype("config.model.param_dtype", spec.model.param_dtype))
  tx, schedule = build_optimizer(spec, 100)
  state = abstract_state(params, tx, seed=0)
  placed = build.param_shardings(spec, params, mesh)
  shardings = meshes.state_shardings(state, params, placed, mesh, offload=spec.optim.offload)
  put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  score_fn = build.build_score_fn(spec.model, config, num_contexts, mesh)
  objective = build_objective(spec.objective, num_contexts, parts=meshes.row_shards(mesh))
  step = make_train_step(score_fn, objective, tx, schedule)
  batch = abstract_batch(spec, mesh, num_contexts=num_contexts, pairs=pairs)
  jitted: Any = jit_train_step(step, shardings, mesh)
  return jitted.lower(jax.tree.map(put, state, shardings), batch).compile()


def abstract_batch(spec: RunSpec, mesh: Mesh, *, num_contexts: int, pairs: int) -> Batch:
  """Shapes and places of what `place_batch` puts on the devices."""
  micro = spec.batch.accumulation
  rows, pair = meshes.batch_shardings(pairs // micro, mesh)
  shape = (micro, spec.batch.rows // micro, spec.batch.row_length)
  tokens = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
  table = lambda dtype: jax.ShapeDtypeStruct((micro, pairs // micro, num_contexts), dtype, sharding=pair)
  flat = lambda dtype: jax.ShapeDtypeStruct((micro, pairs // micro), dtype, sharding=pair)
  return Batch(
    PackedRows(*[tokens] * len(PackedRows._fields)),
    PairInfo(table(jnp.bool_), table(jnp.float32), flat(jnp.float32)),
    flat(jnp.int32),
  )


class Cost(NamedTuple):
  """Of one step on one chip.

  Attributes:
    flops: operations as the compiler counts them; the attention kernels count for none.
    hbm_bytes: that the compiled instructions read and write.
    sent_bytes: results of the collectives between chips.
  """

  flops: float
  hbm_bytes: float
  sent_bytes: float


def step_cost(spec: RunSpec, devices: Sequence[Any], *, scored: int, **batch: int) -> Cost:
  """What one step of a config costs, from the compiler's own count of programs without loops that hide their turns.

  The compiler counts the body of a loop once. So three programs of one or two layers are compiled, looped over or
  not, from whose differences the cost of a layer, of its update and of the rest follow; the head takes all its tokens
  and words in one turn.

  Args:
    spec: the config.
    devices: abstract.
    scored: tokens per shard of rows that the head takes.
    batch: `num_contexts` and `pairs` of `compile_step`.
  """

  def compiled(layers: int, unroll: int) -> np.ndarray:
    arch = {**spec.model.arch, "num_hidden_layers": layers}
    model = dataclasses.replace(spec.model, arch=arch, unroll=unroll, head_chunk=scored, head_keep=0.0)
    with mock.patch.object(head, "_BLOCK_LOGITS", _ALL):
      return np.asarray(_count(compile_step(dataclasses.replace(spec, model=model), devices, **batch)))

  looped, unrolled, single = compiled(2, 1), compiled(2, 2), compiled(1, 1)
  layer, update = unrolled - looped, looped - single
  return Cost(*(single - layer - update + spec.model.arch["num_hidden_layers"] * (layer + update)).tolist())


def sent_bytes(text: str) -> int:
  """Bytes of the results of a compiled program's collectives, each instruction once."""
  total = 0
  for found in _COLLECTIVE.finditer(text):
    shapes = [_bytes(kind, sizes) for kind, sizes in _SHAPE.findall(found["result"])]
    total += max(shapes) if found["start"] else sum(shapes)  # a start's result holds its operand too
  return total


def _count(compiled: jax.stages.Compiled) -> Cost:
  analysis = compiled.cost_analysis() or {}
  return Cost(analysis["flops"], analysis["bytes accessed"], sent_bytes(compiled.as_text()))


def _bytes(kind: str, sizes: str) -> int:
  width = 1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8
  return width * math.prod(int(size) for size in sizes.split(",") if size)
