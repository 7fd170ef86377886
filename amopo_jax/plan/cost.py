"""What a step costs on one chip, by the compiler's own count of programs without loops that hide their turns.

The compiler counts the body of a loop once, however often it turns. Three turns are hidden: over layers, over the
head's chunks of tokens and blocks of words, and over micro-batches. So three programs of one micro-batch are compiled
whose head takes few tokens and all words in one turn: one layer, the same with half of the tokens, and two layers one
after the other. Their differences are the cost of a layer with its update, and that of a token in the head; what is
left is the rest.
"""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from amopo_jax import mesh as meshes
from amopo_jax.build_step import StepParts, build_parts
from amopo_jax.models.config import ModelConfig
from amopo_jax.plan.ahead import compile_step
from amopo_jax.plan.changes import override
from amopo_jax.plan.collectives import Collective, combine, read_collectives
from amopo_jax.run_spec import RunSpec

_HEAD_TOKENS = 256
"""That the head of a counted program takes, at most: a chunk too small for pieces, which would be counted with it."""

_ALL = 1 << 62
"""More logits than there are: the head's loop over words has one turn."""

_COMPILERS = 2
"""Programs that are compiled at a time."""


class Cost(NamedTuple):
  """Of one step on one chip.

  Attributes:
    flops: operations as the compiler counts them; the attention kernels count for none.
    memory_bytes: that the compiled instructions read and write, as if nothing stayed in fast memory between two.
    collectives: by kind.
  """

  flops: float
  memory_bytes: float
  collectives: dict[str, Collective]

  @property
  def link_bytes(self) -> float:
    """Sent over the links of the slice."""
    return sum(found.link_bytes for found in self.collectives.values())

  @property
  def network_bytes(self) -> float:
    """Sent to other slices."""
    return sum(found.network_bytes for found in self.collectives.values())


def step_cost(parts: StepParts, config: ModelConfig, num_contexts: int, scored_share: float) -> tuple[Cost, float]:
  """Counts a step.

  The cost of a layer holds that of its update. With several micro-batches the update is therefore counted once for
  each, and what it reads and writes stands for what the sum of their gradients does.

  Args:
    parts: of the step, on abstract devices.
    config: the decoder.
    num_contexts: K.
    scored_share: of the tokens, those that the head takes.

  Returns:
    The cost, and the seconds that counting took.
  """
  began = time.perf_counter()
  spec, micros = parts.spec, parts.spec.batch.accumulation
  micro = _one_micro_batch(spec)
  tokens = micro.batch.rows // meshes.row_shards(parts.mesh) * micro.batch.row_length
  head = min(_HEAD_TOKENS, tokens)

  def count(program: tuple[int, int]) -> Cost:
    layers, head_tokens = program
    small = override(micro, {"model.head_chunk": head_tokens, "model.unroll": layers})
    shallow = dataclasses.replace(config, num_layers=layers)
    built = build_parts(small, shallow, parts.mesh, num_contexts, block_logits=_ALL)
    return read_cost(compile_step(built, num_contexts), parts.mesh)

  with ThreadPoolExecutor(_COMPILERS) as pool:
    two, one, half = pool.map(count, ((2, head), (1, head), (1, head // 2)))
  layer, token = _sum((1, two), (-1, one)), _sum((2 / head, one), (-2 / head, half))
  rest = _sum((1, one), (-1, layer), (-head, token))
  whole = _sum((micros, rest), (micros * config.num_layers, layer), (micros * tokens * scored_share, token))
  return _positive(whole), time.perf_counter() - began


def read_cost(executable: jax.stages.Compiled, mesh: Mesh) -> Cost:
  """The compiler's count of a program, the bodies of its loops once."""
  analysis: Any = executable.cost_analysis()
  slice_of = [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]
  return Cost(analysis["flops"], analysis["bytes accessed"], read_collectives(executable.as_text() or "", slice_of))


def _one_micro_batch(spec: RunSpec) -> RunSpec:
  micros = spec.batch.accumulation
  return override(
    spec,
    {
      "batch.rows": spec.batch.rows // micros,
      "batch.accumulation": 1,
      "batch.max_pairs": spec.batch.max_pairs // micros,
      "model.head_keep": 0.0,
    },
  )


def _sum(*terms: tuple[float | int, Cost]) -> Cost:
  """A weighted sum of costs."""
  return Cost(
    sum(factor * cost.flops for factor, cost in terms),
    sum(factor * cost.memory_bytes for factor, cost in terms),
    combine([(factor, cost.collectives) for factor, cost in terms]),
  )


def _positive(cost: Cost) -> Cost:
  """Without kinds of collectives that the whole has none of: the compiler writes the smaller programs in other ways."""
  found = {
    kind: Collective(*(max(number, 0.0) for number in one)) for kind, one in cost.collectives.items() if one.count > 0
  }
  return cost._replace(collectives=found)
