"""What every fused kernel shares: the layout of its operands, and the gradient's bookkeeping.

The rows of a batch are laid end to end: to the mask they are subtrees of one long row. Heads come first, query heads
by the key head they read, so that nothing is repeated. Rows are filled up to whole blocks with padding that sees
itself; where a kernel wants it, head sizes with zeros to a power of two, which changes no product.

The backward pass needs of the forward pass the output and each query's logsumexp (FlashAttention-2, arXiv 2307.08691,
algorithm 2); both bear the name that remat policies keep, as in the reference.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from amopo_jax.models.attention.block_map import Blocks, live_blocks, whole_blocks
from amopo_jax.models.attention.reference import ATTENTION_NAME, Reach, make_reach

HIDDEN = float(jnp.finfo(jnp.float32).min)
"""Score of a key that a query does not see: finite, so that a block without any visible key makes no NaN."""

_LEAST_HEAD = 64


class Shape(NamedTuple):
  """What the choice of blocks depends on.

  Attributes:
    length: tokens of a row.
    members: query heads per key head, M.
    head_dim: size of a head as the kernel sees it.
    itemsize: bytes of a number.
  """

  length: int
  members: int
  head_dim: int
  itemsize: int


class Operands(NamedTuple):
  """Q queries and T keys of all rows end to end, for G key heads with M query heads each.

  Attributes:
    q: queries.
    k, v: keys and values.
    reach: what is seen, counted within each row; its keys and the queries fill whole blocks.
    scale: factor of the scores, 1 / √(head size of the model).
    window: how many last positions a query sees; None: all.
  """

  q: Float[Array, "G M Q Dh"]
  k: Float[Array, "G T Dh"]
  v: Float[Array, "G T Dh"]
  reach: Reach
  scale: float
  window: int | None

  @property
  def queries(self) -> int:
    """Queries of a row."""
    return self.q.shape[2] // self.reach.end.shape[0]

  @property
  def end(self) -> Int32[Array, "T"]:
    """`reach.end`, counted from the first token of the first row."""
    rows, length = self.reach.end.shape
    return (self.reach.end + jnp.arange(0, rows * length, length)[:, None]).astype(jnp.int32).reshape(-1)

  @property
  def positions(self) -> Int32[Array, "T"] | None:
    """`reach.positions` of all rows; None without a window."""
    return _flat(self.reach.positions)

  @property
  def query_positions(self) -> Int32[Array, "Q"] | None:
    """Those of the queries."""
    return _flat(self.reach.query_positions(self.queries))

  def query_starts(self, blocks: Blocks) -> Int32[Array, " N"]:
    """For each block of queries the number of its first one among the keys."""
    rows, length = self.reach.end.shape
    starts = jnp.arange(0, self.queries, blocks.queries)[None, :] + jnp.arange(0, rows * length, length)[:, None]
    starts = starts if self.reach.offset is None else starts + self.reach.offset
    return starts.astype(jnp.int32).reshape(-1)

  def live(self, blocks: Blocks) -> Bool[Array, "R queries keys"]:
    """Which blocks meet."""
    return live_blocks(self.reach, blocks, self.window, queries=self.queries)

  def whole(self, blocks: Blocks) -> Bool[Array, "R queries keys"]:
    """Which blocks need no mask."""
    return whole_blocks(self.reach, blocks, self.window, queries=self.queries)


class Pull(NamedTuple):
  """What the backward pass brings.

  Attributes:
    d_out: gradient of the output.
    lse: logsumexp of each query's scores.
    delta: Σ output × d_out over the head.
  """

  d_out: Float[Array, "G M Q Dh"]
  lse: Float32[Array, "G M Q"]
  delta: Float32[Array, "G M Q"]


class Kernel(NamedTuple):
  """The two passes of a backend.

  Attributes:
    blocks: shape -> tokens per block.
    forward: (operands, blocks) -> output and logsumexp.
    backward: (operands, pull, blocks) -> gradients of q, k and v.
    fills_heads: whether heads are filled up to a power of two, of 64 or more.
  """

  blocks: Callable[[Shape], Blocks]
  forward: Callable[[Operands, Blocks], tuple[Array, Array]]
  backward: Callable[[Operands, Pull, Blocks], tuple[Array, Array, Array]]
  fills_heads: bool = True


def kernel_shape(kernel: Kernel, length: int, heads: int, key_heads: int, head_dim: int, itemsize: int) -> Shape:
  """The shape that a kernel sees, from that of a model."""
  return Shape(length, heads // key_heads, _head_dim(kernel, head_dim), itemsize)


def fused_attention(
  kernel: Kernel,
  q: Float[Array, "R Q H Dh"],
  k: Float[Array, "R S G Dh"],
  v: Float[Array, "R S G Dh"],
  subtree_end: Int[Array, "R S"],
  *,
  chunk: int,
  positions: Int[Array, "R S"] | None = None,
  window: int | None = None,
  offset: Int[Array, ""] | None = None,
) -> Float[Array, "R Q H Dh"]:
  """What `reference.attention` computes, by a kernel that visits live blocks only.

  Args:
    kernel: the backend's.
    q, k, v, subtree_end, positions, window, offset: as in the reference; with an offset too, live blocks only.
    chunk: not used; it is the reference's, and a kernel chooses its blocks by itself.

  Returns:
    The heads' outputs in the type of `q`; scores and sums are float32, operands of products have the type of `q`.
  """
  del chunk
  if window is not None and positions is None:
    raise ValueError("attention: a window counts positions; pass positions")
  return _attention(q, k, v, make_reach(subtree_end, positions, window, offset), _How(kernel, window))


class _How(NamedTuple):
  """What is no array."""

  kernel: Kernel
  window: int | None


def _primal(q: Array, k: Array, v: Array, reach: Reach, how: _How) -> Array:
  return _forward(q, k, v, reach, how)[0]


def _forward(
  q: Array, k: Array, v: Array, reach: Reach, how: _How
) -> tuple[Array, tuple[Array, Array, Array, Reach, Array, Array]]:
  operands, blocks = _lay(q, k, v, reach, how)
  output, lse = how.kernel.forward(operands, blocks)
  # The names go to what is kept, or a remat policy that asks for them would not find it.
  output = checkpoint_name(_to_rows(output, q), ATTENTION_NAME)
  lse = checkpoint_name(lse, ATTENTION_NAME)
  return output, (q, k, v, reach, output, lse)


def _backward(
  how: _How, kept: tuple[Array, Array, Array, Reach, Array, Array], d_output: Array
) -> tuple[Array, Array, Array, None]:
  q, k, v, reach, output, lse = kept
  operands, blocks = _lay(q, k, v, reach, how)
  # In the softmax's gradient p_j (dp_j − Σ_i p_i dp_i) the sum is Σ output × d_output, known beforehand.
  delta = jnp.sum(output.astype(jnp.float32) * d_output.astype(jnp.float32), axis=-1, keepdims=True)
  lay = lambda x: _to_heads(x, operands.queries).reshape(k.shape[2], -1, *operands.q.shape[2:3], x.shape[-1])
  d_out = lay(_fill_heads(how.kernel, d_output.astype(q.dtype)))
  d_q, d_k, d_v = how.kernel.backward(operands, Pull(d_out, lse, lay(delta)[..., 0]), blocks)
  whole = lambda x: x.reshape(x.shape[0], 1, *x.shape[1:])
  return _to_rows(d_q, q), _to_rows(whole(d_k), k), _to_rows(whole(d_v), v), None


_attention = jax.custom_vjp(_primal, nondiff_argnums=(4,))
_attention.defvjp(_forward, _backward)


def _lay(q: Array, k: Array, v: Array, reach: Reach, how: _How) -> tuple[Operands, Blocks]:
  _, row, heads, size = q.shape
  blocks = how.kernel.blocks(kernel_shape(how.kernel, row, heads, k.shape[2], size, q.dtype.itemsize))
  length = _up(k.shape[1], max(blocks))
  lay = lambda x, length: _to_heads(_fill_heads(how.kernel, x), length)
  queries, keys, values = lay(q, _up(row, max(blocks))), lay(k, length), lay(v, length)
  queries = queries.reshape(k.shape[2], -1, *queries.shape[1:])
  return Operands(queries, keys, values, _fill_reach(reach, length), size**-0.5, how.window), blocks


def _flat(x: Int[Array, "R S"] | None) -> Int32[Array, "T"] | None:
  return None if x is None else x.astype(jnp.int32).reshape(-1)


def _up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple


def _head_dim(kernel: Kernel, size: int) -> int:
  if not kernel.fills_heads:
    return size
  return max(_LEAST_HEAD, 1 << (size - 1).bit_length())


def _fill_heads(kernel: Kernel, x: Float[Array, "R S H Dh"]) -> Float[Array, "R S H wide"]:
  size = x.shape[-1]
  return jnp.pad(x, ((0, 0),) * 3 + ((0, _head_dim(kernel, size) - size),))


def _fill_reach(reach: Reach, length: int) -> Reach:
  more = length - reach.end.shape[1]
  fill = lambda x: jnp.pad(x, ((0, 0), (0, more)))
  end = jnp.maximum(fill(reach.end), jnp.arange(1, length + 1, dtype=reach.end.dtype)[None, :])
  return Reach(end, None if reach.positions is None else fill(reach.positions), reach.offset)


def _to_heads(x: Float[Array, "R S H Dh"], length: int) -> Float[Array, "H T Dh"]:
  """Heads first, rows filled up to `length` and laid end to end."""
  x = jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0)))
  return x.transpose(2, 0, 1, 3).reshape(x.shape[2], -1, x.shape[3])


def _to_rows(x: Float[Array, "G M T wide"], like: Float[Array, "R S H Dh"]) -> Float[Array, "R S H Dh"]:
  """Undoes layout and filling."""
  rows, row, heads, size = like.shape
  x = x.reshape(heads, rows, -1, x.shape[-1])[:, :, :row, :size]
  return x.transpose(1, 2, 0, 3).astype(like.dtype)
