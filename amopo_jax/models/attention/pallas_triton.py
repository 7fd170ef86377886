"""Fused attention over the trie for NVIDIA GPUs, in Pallas by way of Triton.

One program per block of queries (or of keys, for their gradients) walks down its part of the list of live blocks
(`block_map`); blocks outside the tries are neither computed nor read. The algorithms are those of FlashAttention-2
(arXiv 2307.08691): 1 forward, 2 backward, with one kernel for d_q and one for d_k and d_v, so that no sum is shared
between programs and results do not depend on their order.

Checked in interpret mode, by lowering, and on one GPU (docs/numerics.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

from amopo_jax.models.attention.block_map import (
  BlockList,
  Blocks,
  list_by_keys,
  list_by_queries,
)
from amopo_jax.models.attention.fused import Kernel, Operands, Pull, Shape
from amopo_jax.models.attention.pallas_triton_kernels import (
  Inputs,
  Pulled,
  forward_kernel,
  key_kernel,
  query_kernel,
)

_SIZE = 64
"""Tokens of a block: scores, operands and sums of a program fit into registers and shared memory; the fastest tried."""

_MOST_HEAD = 128


def pallas_triton(*, interpret: bool = False) -> Kernel:
  """The kernels for NVIDIA GPUs.

  Args:
    interpret: run them on the CPU, slowly.
  """
  return Kernel(choose_blocks, partial(_forward, interpret=interpret), partial(_backward, interpret=interpret))


def choose_blocks(shape: Shape) -> Blocks:
  """64 tokens.

  Raises:
    ValueError: heads are too large for a program's registers.
  """
  if shape.head_dim > _MOST_HEAD:
    raise ValueError(f"heads of size {shape.head_dim} are larger than {_MOST_HEAD}")
  return Blocks(_SIZE, _SIZE)


def _forward(x: Operands, blocks: Blocks, interpret: bool) -> tuple[Array, Array]:
  groups, members, queries, _ = x.q.shape
  inputs = _inputs(x, blocks, list_by_queries(x.live(blocks), blocks, x.whole(blocks)))
  mine, number = _query_specs(x, blocks)
  run = _call(
    partial(forward_kernel, blocks=blocks, scale=x.scale, window=x.window),
    grid=(groups, members, queries // blocks.queries),
    in_specs=(_input_specs(inputs, mine),),
    out_specs=(mine, number),
    out_shape=(jax.ShapeDtypeStruct(x.q.shape, x.q.dtype), jax.ShapeDtypeStruct(x.q.shape[:3], jnp.float32)),
    interpret=interpret,
  )
  return run(inputs)


def _backward(x: Operands, pull: Pull, blocks: Blocks, interpret: bool) -> tuple[Array, Array, Array]:
  groups, members, queries, size = x.q.shape
  live, whole = x.live(blocks), x.whole(blocks)
  like = lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype)
  settings = {"blocks": blocks, "scale": x.scale, "window": x.window}
  inputs, pulled = _inputs(x, blocks, list_by_queries(live, blocks, whole)), Pulled(*pull)
  mine, number = _query_specs(x, blocks)
  to_queries = _call(
    partial(query_kernel, **settings),
    grid=(groups, members, queries // blocks.queries),
    in_specs=(_input_specs(inputs, mine), Pulled(mine, number, number)),
    out_specs=mine,
    out_shape=like(x.q),
    interpret=interpret,
  )
  d_q = to_queries(inputs, pulled)
  inputs = _inputs(x, blocks, list_by_keys(live, blocks, whole))
  key = pl.BlockSpec((1, blocks.keys, size), lambda g, block: (g, block, 0))
  to_keys = _call(
    partial(key_kernel, **settings),
    grid=(groups, x.k.shape[1] // blocks.keys),
    in_specs=(_input_specs(inputs, None), Pulled(*(_group(y) for y in pulled))),
    out_specs=(key, key),
    out_shape=(like(x.k), like(x.v)),
    interpret=interpret,
  )
  return d_q, *to_keys(inputs, pulled)


def _inputs(x: Operands, blocks: Blocks, blocked: BlockList) -> Inputs:
  tokens = x.end, x.positions, x.query_positions, x.query_starts(blocks)
  return Inputs(x.q, x.k, x.v, *tokens, *blocked)


def _query_specs(x: Operands, blocks: Blocks) -> tuple[pl.BlockSpec, pl.BlockSpec]:
  """A block of queries of one head, and a number for each of them."""
  values = pl.BlockSpec((1, 1, blocks.queries, x.q.shape[-1]), lambda g, m, block: (g, m, block, 0))
  return values, pl.BlockSpec((1, 1, blocks.queries), lambda g, m, block: (g, m, block))


def _input_specs(inputs: Inputs, queries: pl.BlockSpec | None) -> Inputs:
  """Everything is there whole, of one key head; only the queries may be cut."""
  group, whole = _group(inputs.k), pl.BlockSpec(memory_space=pl.ANY)
  positions = None if inputs.positions is None else whole
  return Inputs(queries or _group(inputs.q), group, group, whole, positions, positions, whole, whole, whole, whole)


def _group(x: Array) -> pl.BlockSpec:
  """All of the key head that the grid's first axis counts."""
  rest = (0,) * (x.ndim - 1)
  return pl.BlockSpec((1, *x.shape[1:]), lambda g, *_: (g, *rest))


def _call(
  kernel: Callable[..., None], *, grid: tuple[int, ...], in_specs: Any, out_specs: Any, out_shape: Any, interpret: bool
) -> Callable[..., Any]:
  return pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=in_specs,
    out_specs=out_specs,
    out_shape=out_shape,
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
  )
