"""Fused attention over the trie for NVIDIA GPUs, in Pallas by way of Triton.

One program per block of queries (or of keys, for their gradients) walks down its part of the list of live blocks
(`block_map`); blocks outside the tries are neither computed nor read. The algorithms are those of FlashAttention-2
(arXiv 2307.08691): 1 forward, 2 backward, with one kernel for d_q and one for d_k and d_v, so that no sum is shared
between programs and results do not depend on their order.

Written and checked in interpret mode and by lowering; not yet run on a GPU (docs/numerics.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

from amopo_jax.models.attention.block_map import (
  BlockList,
  Blocks,
  inner,
  list_by_keys,
  list_by_queries,
  live_blocks,
)
from amopo_jax.models.attention.fused import HIDDEN, Kernel, Operands, Pull, Shape

_SIZE = 64
"""Tokens of a block: scores, operands and sums of a program fit into registers and shared memory."""

_MOST_HEAD = 128


def pallas_triton(*, interpret: bool = False) -> Kernel:
  """The kernels for NVIDIA GPUs.

  Args:
    interpret: run them on the CPU, slowly.
  """
  return Kernel(choose_blocks, partial(_forward, interpret=interpret), partial(_backward, interpret=interpret))


def choose_blocks(shape: Shape, chunk: int) -> Blocks:
  """64 tokens, or 32 where `chunk` is smaller than 64.

  Raises:
    ValueError: heads are too large for a program's registers.
  """
  if shape.head_dim > _MOST_HEAD:
    raise ValueError(f"heads of size {shape.head_dim} are larger than {_MOST_HEAD}")
  size = _SIZE if chunk >= _SIZE else _SIZE // 2
  return Blocks(size, size)


class _Inputs(NamedTuple):
  """Operands of a kernel: arrays, how they are cut, or references."""

  q: Any
  k: Any
  v: Any
  end: Any
  positions: Any
  entries: Any
  starts: Any


class _Pulled(NamedTuple):
  """Likewise what only the backward pass has."""

  d_out: Any
  lse: Any
  inner: Any


class _Queries(NamedTuple):
  """A block of queries: their numbers, their positions where there is a window, and their heads' values."""

  numbers: Array
  positions: Array | None
  q: Array


class _Keys(NamedTuple):
  """A block of keys likewise."""

  numbers: Array
  end: Array
  positions: Array | None
  k: Array
  v: Array


def _forward(x: Operands, blocks: Blocks, interpret: bool) -> tuple[Array, Array]:
  groups, members, tokens, size = x.q.shape
  inputs = _inputs(x, list_by_queries(live_blocks(x.reach, blocks, x.window), blocks))
  mine = pl.BlockSpec((1, 1, blocks.queries, size), lambda g, m, block: (g, m, block, 0))
  number = pl.BlockSpec((1, 1, blocks.queries), lambda g, m, block: (g, m, block))
  run = _call(
    partial(_forward_kernel, blocks=blocks, scale=x.scale, window=x.window),
    grid=(groups, members, tokens // blocks.queries),
    in_specs=(_input_specs(inputs, mine),),
    out_specs=(mine, number),
    out_shape=(jax.ShapeDtypeStruct(x.q.shape, x.q.dtype), jax.ShapeDtypeStruct(x.q.shape[:3], jnp.float32)),
    interpret=interpret,
  )
  return run(inputs)


def _backward(x: Operands, pull: Pull, blocks: Blocks, interpret: bool) -> tuple[Array, Array, Array]:
  groups, members, tokens, size = x.q.shape
  live = live_blocks(x.reach, blocks, x.window)
  like = lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype)
  settings = {"blocks": blocks, "scale": x.scale, "window": x.window}
  inputs, pulled = _inputs(x, list_by_queries(live, blocks)), _Pulled(*pull)
  mine = pl.BlockSpec((1, 1, blocks.queries, size), lambda g, m, block: (g, m, block, 0))
  number = pl.BlockSpec((1, 1, blocks.queries), lambda g, m, block: (g, m, block))
  to_queries = _call(
    partial(_query_kernel, **settings),
    grid=(groups, members, tokens // blocks.queries),
    in_specs=(_input_specs(inputs, mine), _Pulled(mine, number, number)),
    out_specs=mine,
    out_shape=like(x.q),
    interpret=interpret,
  )
  d_q = to_queries(inputs, pulled)
  inputs = _inputs(x, list_by_keys(live, blocks))
  key = pl.BlockSpec((1, blocks.keys, size), lambda g, block: (g, block, 0))
  to_keys = _call(
    partial(_key_kernel, **settings),
    grid=(groups, tokens // blocks.keys),
    in_specs=(_input_specs(inputs, None), _Pulled(*(_group(y) for y in pulled))),
    out_specs=(key, key),
    out_shape=(like(x.k), like(x.v)),
    interpret=interpret,
  )
  return d_q, *to_keys(inputs, pulled)


def _forward_kernel(x: _Inputs, output: Any, lse: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  block = pl.program_id(2)
  queries = _queries(x, block, blocks, x.q[0, 0])

  def visit(place: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    top, total, summed = state
    keys = _keys(x, inner(x.entries[place]), blocks)
    scores = _scores(queries, keys, scale, window)
    now = jnp.maximum(top, jnp.max(scores, axis=1))
    shares, shrink = jnp.exp(scores - now[:, None]), jnp.exp(top - now)
    summed = summed * shrink[:, None] + _product(shares.astype(keys.v.dtype), keys.v)
    return now, total * shrink + jnp.sum(shares, axis=1), summed

  nothing = jnp.zeros(blocks.queries, jnp.float32)
  state = nothing + HIDDEN, nothing, jnp.zeros(x.q.shape[2:], jnp.float32)
  top, total, summed = jax.lax.fori_loop(x.starts[block], x.starts[block + 1], visit, state)
  output[0, 0] = (summed / total[:, None]).astype(output.dtype)
  lse[0, 0] = top + jnp.log(total)


def _query_kernel(x: _Inputs, pulled: _Pulled, d_q: Any, *, blocks: Blocks, scale: float, window: int | None) -> None:
  block = pl.program_id(2)
  queries = _queries(x, block, blocks, x.q[0, 0])
  mine = _Pulled(pulled.d_out[0, 0], pulled.lse[0, 0], pulled.inner[0, 0])

  def visit(place: Array, summed: Array) -> Array:
    keys = _keys(x, inner(x.entries[place]), blocks)
    _, d_scores = _shares(queries, keys, mine, scale, window)
    return summed + _product(d_scores, keys.k)

  zeros = jnp.zeros(x.q.shape[2:], jnp.float32)
  d_q[0, 0] = jax.lax.fori_loop(x.starts[block], x.starts[block + 1], visit, zeros).astype(d_q.dtype)


def _key_kernel(
  x: _Inputs, pulled: _Pulled, d_k: Any, d_v: Any, *, blocks: Blocks, scale: float, window: int | None
) -> None:
  block, members = pl.program_id(1), x.q.shape[1]
  keys = _keys(x, block, blocks)

  def visit(step: Array, summed: tuple[Array, Array]) -> tuple[Array, Array]:
    place, member = jax.lax.div(step, members), jax.lax.rem(step, members)
    number = inner(x.entries[place])
    at = pl.ds(number * blocks.queries, blocks.queries)
    queries = _queries(x, number, blocks, x.q[0, member, at, :])
    theirs = _Pulled(pulled.d_out[0, member, at, :], pulled.lse[0, member, at], pulled.inner[0, member, at])
    shares, d_scores = _shares(queries, keys, theirs, scale, window)
    return summed[0] + _product(d_scores.T, queries.q), summed[1] + _product(shares.T, theirs.d_out)

  zeros = jnp.zeros(keys.k.shape, jnp.float32)
  bounds = x.starts[block] * members, x.starts[block + 1] * members
  summed_k, summed_v = jax.lax.fori_loop(*bounds, visit, (zeros, zeros))
  d_k[0], d_v[0] = summed_k.astype(d_k.dtype), summed_v.astype(d_v.dtype)


def _shares(queries: _Queries, keys: _Keys, pulled: _Pulled, scale: float, window: int | None) -> tuple[Array, Array]:
  """Shares of the keys in a query's output, and the gradient of the scores, both [queries keys] as operands."""
  shares = jnp.exp(_scores(queries, keys, scale, window) - pulled.lse[:, None])
  d_scores = shares * (_product(pulled.d_out, keys.v.T) - pulled.inner[:, None]) * scale
  return shares.astype(keys.k.dtype), d_scores.astype(keys.k.dtype)


def _scores(queries: _Queries, keys: _Keys, scale: float, window: int | None) -> Array:
  query = queries.numbers[:, None]
  visible = (keys.numbers[None, :] <= query) & (query < keys.end[None, :])
  if window is not None and queries.positions is not None and keys.positions is not None:
    visible &= queries.positions[:, None] - keys.positions[None, :] < window
  return jnp.where(visible, _product(queries.q, keys.k.T) * scale, HIDDEN)


def _product(x: Array, y: Array) -> Array:
  return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _queries(x: _Inputs, block: Array, blocks: Blocks, q: Array) -> _Queries:
  first = block * blocks.queries
  positions = None if x.positions is None else x.positions[pl.ds(first, blocks.queries)]
  return _Queries(first + jnp.arange(blocks.queries), positions, q)


def _keys(x: _Inputs, block: Array, blocks: Blocks) -> _Keys:
  first = block * blocks.keys
  at = pl.ds(first, blocks.keys)
  positions = None if x.positions is None else x.positions[at]
  return _Keys(first + jnp.arange(blocks.keys), x.end[at], positions, x.k[0, at, :], x.v[0, at, :])


def _inputs(x: Operands, blocked: BlockList) -> _Inputs:
  return _Inputs(x.q, x.k, x.v, x.end, x.positions, blocked.entries, blocked.starts)


def _input_specs(inputs: _Inputs, queries: pl.BlockSpec | None) -> _Inputs:
  """Everything is there whole, of one key head; only the queries may be cut."""
  group, whole = _group(inputs.k), pl.BlockSpec(memory_space=pl.ANY)
  positions = None if inputs.positions is None else whole
  return _Inputs(queries or _group(inputs.q), group, group, whole, positions, whole, whole)


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
