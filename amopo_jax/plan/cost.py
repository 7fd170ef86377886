"""What a step costs on one chip, read from the text of the compiled step: each instruction as often as it runs.

The compiler's own count takes the body of a loop once, however often it turns, and counts what stays in fast memory as
if it did not. In the text stand the loops' turns, the products, and the memory in which each array lies.

How many scored tokens there are is known as the step runs alone; the head's loops over them turn as often as the
assumed share of scored tokens makes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from amopo_jax import mesh as meshes
from amopo_jax.build_step import StepParts
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.head import kept_chunks
from amopo_jax.models.logps import CHUNKS, KEPT_SPANS, PIECES
from amopo_jax.plan.collectives import Collective, read_collectives
from amopo_jax.plan.hlo import parse
from amopo_jax.plan.loops import Turns, called_by, run_times
from amopo_jax.plan.products import product_flops
from amopo_jax.plan.traffic import chained, traffic
from amopo_jax.run_spec import RunSpec


class Cost(NamedTuple):
  """Of one step on one chip.

  Attributes:
    flops: operations of the matrix products; the attention kernels count for none.
    memory_bytes: that pass between the chip's memory and its core.
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


def step_cost(executable: jax.stages.Compiled, parts: StepParts, config: ModelConfig, scored_share: float) -> Cost:
  """Counts a step.

  Args:
    executable: the step.
    parts: of it, on abstract devices.
    config: the decoder.
    scored_share: of the tokens, those that the head takes.
  """
  slice_of = [getattr(device, "slice_index", None) or 0 for device in parts.mesh.devices.flat]
  head = head_turns(parts.spec, config, parts.mesh, scored_share)
  return read_cost(executable.as_text() or "", slice_of, lambda name: _turns(head, name))


def read_cost(text: str, slice_of: Sequence[int], turns: Turns) -> Cost:
  """Counts a program.

  Args:
    text: of `jax.stages.Compiled.as_text`.
    slice_of: number of the slice of each device, in the order of the mesh.
    turns: of loops whose number of turns is not in the text.
  """
  computations = parse(text)
  times, parts = run_times(computations, turns), called_by(("while", "conditional", "call"), computations)
  flops = memory = 0.0
  chains: set[str] = set()
  for name, computation in computations.items():
    for one in computation.values():
      flops += times[name] * product_flops(one, computation)
      memory += times[name] * traffic(one, computation, computations) if name not in parts else 0.0
      chain = chained(one, computation)
      if chain and chain[0] not in chains:
        chains.add(chain[0])
        memory += times[name] * chain[1]
  return Cost(flops, memory, read_collectives(text, slice_of, times))


class HeadTurns(NamedTuple):
  """Turns of the head's loops over whole chunks of scored tokens; what remains is counted as a part of a turn.

  Attributes:
    kept: with their logits kept.
    others: with their logits computed twice.
  """

  kept: float
  others: float


def head_turns(spec: RunSpec, config: ModelConfig, mesh: Mesh, scored_share: float) -> HeadTurns:
  """How often the head's loops turn.

  Args:
    spec, config: of the run.
    mesh: its devices.
    scored_share: of the tokens, those that the head takes.
  """
  rows = spec.batch.rows // spec.batch.accumulation // meshes.row_shards(mesh)
  tokens = -(-rows * spec.batch.row_length // mesh.shape["context"])
  chunk = min(spec.model.head_chunk, tokens)
  room = kept_chunks(spec.model.head_keep, chunk, config.vocab_size // meshes.vocab_shards(mesh, config.vocab_size))
  turns = tokens * scored_share / chunk
  return HeadTurns(min(room, turns), turns - min(room, turns))


def _turns(head: HeadTurns, name: str) -> float:
  if PIECES in name:
    return 0.0
  if CHUNKS in name:
    return head.kept if KEPT_SPANS in name else head.others
  return 1.0
