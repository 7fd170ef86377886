"""The real train step of a run, compiled for devices that are not there, and what the compiler says of its memory."""

import math
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from amopo_jax import build_data
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import needs_reference
from amopo_jax.build_step import StepParts, build_step
from amopo_jax.plan.chips import GIB
from amopo_jax.plan.stacks import read_stacks
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import Batch, PackedRows, PairInfo, RunFailure

_NUM_STEPS = 100
"""Of the schedule: any number makes the same program but for its constants."""

_AMOUNT = r"([\d.]+)([KMGT]?)"
_SHORTAGES = (
  re.compile(rf"Ran out of memory.*\({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)", re.DOTALL),
  re.compile(rf"Ran out of memory in memory space hbm\. Used {_AMOUNT} of {_AMOUNT} hbm"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


Sizes = tuple[int, int, int, int]
"""The first fields of a `Memory`."""


class Memory(NamedTuple):
  """Bytes on one chip; the parts of the arguments are those of the arrays, the rest is the compiler's word.

  Attributes:
    parameters: that are trained.
    optimizer: its state, so far as it is not on the hosts.
    base: parameters that are frozen; 0 where all are trained.
    batch: token rows and what the annotators said of the pairs.
    arguments: all of these as the compiler lays them out.
    temporaries: what else there is when most is needed, with results that take no argument's place; None where the
      compiler refused the program.
    needed: all that a step has to have at once; as far as the compiler counted, where it refused the program.
    available: what the compiler grants a program; None where it did not say so.
    activations: of the temporaries, what the passes over the layers keep for the way back; 0 where it is not known.
    gradients: of the temporaries, those of the layers' parameters; they share their room with what is dead by then.
    host: beside all of this, of the optimizer's state, what this chip has in the memory of its host.
  """

  parameters: int
  optimizer: int
  base: int
  batch: int
  arguments: int
  temporaries: int | None
  needed: int
  available: int | None
  activations: int = 0
  gradients: int = 0
  host: int = 0


class Attempt(NamedTuple):
  """What became of compiling a step.

  Attributes:
    executable: None where it does not fit.
    memory: of a chip.
    seconds: that tracing and compiling took.
  """

  executable: jax.stages.Compiled | None
  memory: Memory
  seconds: float

  @property
  def fits(self) -> bool:
    """Whether the compiler accepted it."""
    return self.executable is not None


def try_step(parts: StepParts, num_contexts: int) -> Attempt:
  """Compiles the step; a step that is too large for the chip's memory is an answer, not an error.

  Args:
    parts: of `build_step.build_parts`, on abstract devices.
    num_contexts: K.

  Raises:
    RunFailure: the compiler refused the program for another reason.
  """
  sizes = argument_sizes(parts, num_contexts)
  began = time.perf_counter()
  try:
    executable = compile_step(parts, num_contexts)
  except jax.errors.JaxRuntimeError as error:
    needed, available = _shortage(str(error))
    memory = Memory(*sizes, sum(sizes), None, needed, available, host=host_bytes(parts))
    return Attempt(None, memory, time.perf_counter() - began)
  turns = jax.tree.leaves(parts.split.params["layers"])[0].shape[0] // parts.spec.model.unroll
  memory = _accepted(executable, sizes, turns)._replace(host=host_bytes(parts))
  return Attempt(executable, memory, time.perf_counter() - began)


def compile_step(parts: StepParts, num_contexts: int, options: dict[str, str] | None = None) -> jax.stages.Compiled:
  """Compiles the step of a run on abstract devices.

  Args:
    parts, num_contexts: of `try_step`.
    options: of the compiler.

  Raises:
    jax.errors.JaxRuntimeError: the compiler refused it.
  """
  step = build_step(parts, _NUM_STEPS)
  jitted: Any = step.train_step
  batch = abstract_batch(parts.spec, parts.mesh, num_contexts)
  return jitted.lower(step.target, batch, parts.split.base).compile(compiler_options=options)


def abstract_batch(spec: RunSpec, mesh: meshes.AnyMesh, num_contexts: int) -> Batch:
  """Shapes and places of the batch that a run puts onto its devices.

  Args:
    spec: the config.
    mesh: may be of sizes alone.
    num_contexts: K.
  """
  pack, micros = build_data.pack_spec(spec.batch, num_contexts), spec.batch.accumulation
  pairs = build_data.num_streams(spec.batch) // micros * pack.max_pairs
  by_row, by_pair = meshes.batch_shardings(pairs, mesh)
  put: Any = lambda sharding, dtype, *shape: jax.ShapeDtypeStruct((micros, *shape), dtype, sharding=sharding)
  tokens = put(by_row, jnp.int32, spec.batch.rows // micros, spec.batch.row_length)
  return Batch(
    PackedRows(*[tokens] * len(PackedRows._fields)),
    PairInfo(
      put(by_pair, jnp.bool_, pairs, num_contexts),
      put(by_pair, jnp.float32, pairs, num_contexts),
      put(by_pair, jnp.float32, pairs),
      put(by_pair, jnp.float32, pairs, num_contexts, 2) if needs_reference(spec.objective) else None,
      put(by_pair, jnp.float32, pairs, num_contexts),
    ),
    put(by_pair, jnp.int32, pairs),
  )


def argument_sizes(parts: StepParts, num_contexts: int) -> Sizes:
  """Bytes on one chip of what is trained, of the optimizer, of what is frozen, and of the batch."""
  target = build_step(parts, _NUM_STEPS).target
  batch = abstract_batch(parts.spec, parts.mesh, num_contexts)
  trained, frozen = bytes_per_chip(target.params), bytes_per_chip(parts.split.base)
  return trained, bytes_per_chip(target.opt_state), frozen, bytes_per_chip(batch)


def host_bytes(parts: StepParts) -> int:
  """Bytes that one chip has in the memory of its host."""
  return bytes_per_chip(build_step(parts, _NUM_STEPS).target, on_host=True)


def bytes_per_chip(tree: Any, *, on_host: bool = False) -> int:
  """Bytes that one chip holds of abstract arrays, by their shardings, in its own memory or in that of its host."""
  held = [leaf for leaf in jax.tree.leaves(tree) if (leaf.sharding.memory_kind == meshes.HOST) == on_host]
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * _bits(leaf.dtype) // 8 for leaf in held)


def _bits(dtype: Any) -> int:
  """Of an entry; NumPy gives 4-bit integers a byte."""
  return jnp.iinfo(dtype).bits if jnp.issubdtype(dtype, jnp.integer) else 8 * dtype.itemsize


def _accepted(executable: jax.stages.Compiled, sizes: Sizes, num_turns: int) -> Memory:
  found: Any = executable.memory_analysis()
  arguments, peak = found.argument_size_in_bytes, found.peak_memory_in_bytes
  needed = peak + found.generated_code_size_in_bytes
  return Memory(*sizes, arguments, peak - arguments, needed, None, *read_stacks(executable.as_text() or "", num_turns))


def _shortage(message: str) -> tuple[int, int]:
  """Bytes that a program needs and that there are, from the compiler's refusal."""
  for form in _SHORTAGES:
    if found := form.search(message):
      needed, needed_unit, available, available_unit = found.groups()
      return round(float(needed) * _UNITS[needed_unit]), round(float(available) * _UNITS[available_unit])
  raise RunFailure(f"the TPU's compiler refused the step: {message.strip().splitlines()[0]}")
