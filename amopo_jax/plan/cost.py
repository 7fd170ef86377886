"""What a step costs on one chip, by the compiler's own count of programs without loops that hide their turns.

The compiler counts the body of a loop once, however often it turns. Three turns are hidden: over layers, over the
head's chunks of tokens and blocks of words, and over micro-batches. So three programs of one micro-batch are compiled
whose head takes few tokens and all words in one turn: one of a single layer, the same without any, and that with half
of the tokens. Their differences are the cost of a layer with its update, and that of a token in the head; what is
left is the rest. Nor may the compiler make loops of its own in them, of a product and a gather.

What the chips send each other is read from the step itself instead, loop by loop: in it the compiler gathers what a
layer needs while it computes another. The head's loops send nothing.
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
from amopo_jax.models.transformer import LAYERS
from amopo_jax.plan.ahead import compile_step
from amopo_jax.plan.changes import override
from amopo_jax.plan.collectives import Collective, read_collectives
from amopo_jax.run_spec import RunSpec

_HEAD_TOKENS = 64
"""That the head of a counted program takes, at most: a chunk too small for pieces, which would be counted with it."""

_ALL = 1 << 62
"""More logits than there are: the head's loop over words has one turn."""

_NO_LOOPS = {f"xla_tpu_enable_windowed_einsum_for_{kind}": "false" for kind in ("all_gather", "reduce_scatter")}
"""Options of the compiler, which else makes loops around a ring of chips, whose products count once."""

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


def step_cost(
  executable: jax.stages.Compiled, parts: StepParts, config: ModelConfig, num_contexts: int, scored_share: float
) -> tuple[Cost, float]:
  """Counts a step.

  The cost of a layer holds that of its update. With several micro-batches the update is therefore counted once for
  each, and what it reads and writes stands for what the sum of their gradients does.

  Args:
    executable: the step.
    parts: of it, on abstract devices.
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

  def count(program: tuple[int, int]) -> _Count:
    layers, head_tokens = program
    small = override(micro, {"model.head_chunk": head_tokens, "model.unroll": 1})
    shallow = dataclasses.replace(config, num_layers=layers)
    built = build_parts(small, shallow, parts.mesh, num_contexts, block_logits=_ALL)
    return _count(compile_step(built, num_contexts, _NO_LOOPS))

  with ThreadPoolExecutor(_COMPILERS) as pool:
    one, none, half = pool.map(count, ((1, head), (0, head), (0, head // 2)))
  layer, token = _sum((1, one), (-1, none)), _sum((2 / head, none), (-2 / head, half))
  rest = _sum((1, none), (-head, token))
  whole = _sum((micros, rest), (micros * config.num_layers, layer), (micros * tokens * scored_share, token))
  sent = sent_by(executable, parts.mesh, num_layers=config.num_layers // spec.model.unroll, micros=micros)
  return Cost(*whole, sent), time.perf_counter() - began


def sent_by(executable: jax.stages.Compiled, mesh: Mesh, *, num_layers: int, micros: int) -> dict[str, Collective]:
  """The collectives of a step.

  Args:
    executable: compiled.
    mesh: its devices.
    num_layers: turns of the loop over layers.
    micros: micro-batches.
  """

  def turns(loop: str) -> float:
    *path, _ = loop.split("/")  # such as jit(step)/while/body/closed_call/jvp(layers)/while
    return float(num_layers if LAYERS in path[-1] else micros if len(path) == 1 else 1)

  slice_of = [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]
  return read_collectives(executable.as_text() or "", slice_of, turns)


class _Count(NamedTuple):
  flops: float
  memory_bytes: float


def _count(executable: jax.stages.Compiled) -> _Count:
  """The compiler's count of a program, the bodies of its loops once."""
  analysis: Any = executable.cost_analysis()
  return _Count(analysis["flops"], analysis["bytes accessed"])


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


def _sum(*terms: tuple[float | int, _Count]) -> _Count:
  """A weighted sum of counts."""
  return _Count(*(sum(factor * count[field] for factor, count in terms) for field in range(len(_Count._fields))))
