"""Fused attention over the trie for the TPU, in Pallas.

Three kernels walk down a list of live blocks (`block_map`), whose length is data: the grid ends where the list
ends, and blocks outside the tries are neither computed nor fetched. Key heads are the grid's other axis, which two
cores of a chip share.

    forward   by blocks of queries: running maximum, sum and output (FlashAttention-2, arXiv 2307.08691, algorithm 1)
    d_q       by blocks of queries, d_k and d_v by blocks of keys: algorithm 2, scores recomputed
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from amopo_jax.models.attention.block_map import (
  BlockList,
  Blocks,
  inner,
  list_by_keys,
  list_by_queries,
  most_live,
  outer,
  with_every_key,
)
from amopo_jax.models.attention.fused import Kernel, Operands, Pull, Shape
from amopo_jax.models.attention.pallas_tpu_kernels import Inputs, Pulled, forward_kernel, key_kernel, query_kernel
from amopo_jax.types import InputError

SIZES = (256, 128)
"""Tokens of a block, the first that fits; a compromise between skipping and full matrix units (docs/numerics.md)."""

_LANES = 128
_VMEM = 24 * 2**20
"""Bytes that the estimate of a kernel's fast memory may reach; a v5p core has 64 MiB, v5e and v6e have 128."""

_VMEM_LIMIT = 40 * 2**20
"""What the compiler is allowed."""

_SMEM = 768 * 2**10
"""Bytes of scalar memory for the list, of 1 MiB."""


def pallas_tpu(*, interpret: bool = False) -> Kernel:
  """The kernels for the TPU.

  Args:
    interpret: run them on the CPU, slowly.
  """
  return Kernel(choose_blocks, partial(_forward, interpret=interpret), partial(_backward, interpret=interpret))


def choose_blocks(shape: Shape) -> Blocks:
  """The largest blocks that fit into fast memory and no more than fill a row.

  Raises:
    ValueError: the heads that read one key head are too many or too large even for the smallest block.
  """
  fitting = [size for size in SIZES if _vmem_bytes(shape, size) <= _VMEM]
  if not fitting:
    need = _vmem_bytes(shape, SIZES[-1]) / 2**20
    raise ValueError(
      f"{shape.members} query heads of size {shape.head_dim} per key head need {need:.0f} MiB of fast memory"
    )
  size = next((size for size in fitting if size < shape.length + SIZES[-1]), fitting[-1])
  return Blocks(size, size)


def _vmem_bytes(shape: Shape, size: int) -> int:
  """Fast memory of the hungriest kernel: operands and results twice, for the copies ahead, sums and scores once."""
  wide = -(-shape.head_dim // _LANES) * _LANES
  block = size * wide
  by_queries = shape.members * block * (6 * shape.itemsize + 4) + 4 * block * shape.itemsize
  by_keys = shape.members * block * 4 * shape.itemsize + block * (8 * shape.itemsize + 8)
  return max(by_queries, by_keys) + 6 * size * size * 4


class _Specs(NamedTuple):
  """How arrays are cut: heads and numbers of queries [G M T Dh], [G M T], of keys [G T Dh], and of tokens [1 T]."""

  queries: pl.BlockSpec
  query_numbers: pl.BlockSpec
  keys: pl.BlockSpec
  query_tokens: pl.BlockSpec
  key_tokens: pl.BlockSpec


def _check_list(x: Operands, blocks: Blocks) -> None:
  rows, length = x.reach.end.shape
  need = rows * (most_live(length, blocks, x.queries) + x.queries // blocks.queries) * 4
  if need > _SMEM:
    raise InputError(
      f"attention: {rows} rows of {length} tokens at once need {need / 2**10:.0f} KiB of scalar memory; "
      "use more micro-batches, config.batch.accumulation, or shorter rows"
    )


def _forward(x: Operands, blocks: Blocks, interpret: bool) -> tuple[Array, Array]:
  _check_list(x, blocks)
  _, members, _, size = x.q.shape
  blocked = list_by_queries(x.live(blocks), blocks)
  specs = _specs(x, blocks, query=outer, key=inner)
  run = _call(
    partial(forward_kernel, scale=x.scale, window=x.window),
    blocked,
    x.query_starts(blocks),
    in_specs=(_input_specs(specs, x.window),),
    out_specs=(specs.queries, specs.query_numbers),
    out_shape=(jax.ShapeDtypeStruct(x.q.shape, x.q.dtype), jax.ShapeDtypeStruct(x.q.shape[:3], jnp.float32)),
    scratch=[(members, blocks.queries), (members, blocks.queries), (members, size, blocks.queries)],
    interpret=interpret,
  )
  return run(_inputs(x))


def _backward(x: Operands, pull: Pull, blocks: Blocks, interpret: bool) -> tuple[Array, Array, Array]:
  _, members, _, size = x.q.shape
  live, starts = x.live(blocks), x.query_starts(blocks)
  like = lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype)
  pulled = lambda specs: Pulled(specs.queries, specs.query_numbers, specs.query_numbers)
  call = partial(_call, interpret=interpret)
  specs = _specs(x, blocks, query=outer, key=inner)
  to_queries = call(
    partial(query_kernel, scale=x.scale, window=x.window),
    list_by_queries(live, blocks),
    starts,
    in_specs=(_input_specs(specs, x.window), pulled(specs)),
    out_specs=specs.queries,
    out_shape=like(x.q),
    scratch=[(members, size, blocks.queries)],
  )
  specs = _specs(x, blocks, query=inner, key=outer)
  to_keys = call(
    partial(key_kernel, scale=x.scale, window=x.window),
    list_by_keys(live if x.reach.offset is None else with_every_key(live), blocks),
    starts,
    in_specs=(_input_specs(specs, x.window), pulled(specs)),
    out_specs=(specs.keys, specs.keys),
    out_shape=(like(x.k), like(x.v)),
    scratch=[(blocks.keys, size), (blocks.keys, size)],
  )
  inputs = _inputs(x), Pulled(*pull)
  return to_queries(*inputs), *to_keys(*inputs)


def _inputs(x: Operands) -> Inputs:
  row = lambda y: None if y is None else y[None, :]
  return Inputs(x.q, x.k, x.v, row(x.end), row(x.query_positions), row(x.positions))


def _input_specs(specs: _Specs, window: int | None) -> Inputs:
  tokens = (None, None) if window is None else (specs.query_tokens, specs.key_tokens)
  return Inputs(specs.queries, specs.keys, specs.keys, specs.key_tokens, *tokens)


def _specs(x: Operands, blocks: Blocks, query: Callable[[Array], Array], key: Callable[[Array], Array]) -> _Specs:
  _, members, _, size = x.q.shape
  return _Specs(
    pl.BlockSpec((1, members, blocks.queries, size), lambda g, step, entries, _: (g, 0, query(entries[step]), 0)),
    pl.BlockSpec((1, members, blocks.queries), lambda g, step, entries, _: (g, 0, query(entries[step]))),
    pl.BlockSpec((1, blocks.keys, size), lambda g, step, entries, _: (g, key(entries[step]), 0)),
    pl.BlockSpec((1, blocks.queries), lambda g, step, entries, _: (0, query(entries[step]))),
    pl.BlockSpec((1, blocks.keys), lambda g, step, entries, _: (0, key(entries[step]))),
  )


def _call(
  kernel: Callable[..., None],
  blocked: BlockList,
  query_starts: Array,
  *,
  in_specs: Any,
  out_specs: Any,
  out_shape: Any,
  scratch: list[tuple[int, ...]],
  interpret: bool,
) -> Callable[..., Any]:
  """The kernel over key heads × live pairs of blocks."""
  groups = jax.tree.leaves(out_shape)[0].shape[0]
  run = pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(groups, blocked.count),
      in_specs=in_specs,
      out_specs=out_specs,
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=out_shape,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_VMEM_LIMIT),
    interpret=interpret,
  )
  return partial(run, blocked.entries, query_starts)
