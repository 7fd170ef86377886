"""Kernels of a frozen base in 8 or 4 bits: made by qwix, in its format, and turned back into floats.

A kernel [… in out] is cut along `in` into tiles of 64 or less, each with one float32 scale per output:

    int8    kernel ≈ qvalue · scale            scale = max |tile| / 127.5
    nf4     kernel ≈ NF4[qvalue] · scale       scale = max |tile|; the 16 values of arXiv 2305.14314, appendix E

Both take 0.5 bit per parameter for the scales. A tile lies within an output and a layer, so that any part of a kernel
whose bounds are those of tiles can be quantized by itself, with the same bits.
"""

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import qwix
from jaxtyping import Array, Float, Shaped

TYPES: dict[str, Any] = {"int8": jnp.int8, "nf4": "nf4"}
"""Names of the formats, and what qwix calls them."""

_LARGEST_TILE = 64


def tile_size(inputs: int) -> int:
  """Parameters that share a scale: the largest power of two up to 64 that divides the inputs of a kernel."""
  return math.gcd(inputs, _LARGEST_TILE)


def quantize(kernel: Float[Array, "*layers inputs outputs"], name: str) -> dict[str, Array]:
  """A kernel as `qvalue`, of its shape, and `scale` [… in/tile out].

  Args:
    kernel: any float type.
    name: of TYPES.
  """
  tiled = kernel.ndim - 2
  others = tuple(axis for axis in range(kernel.ndim) if axis != tiled)
  made = qwix.quantize(
    kernel.astype(jnp.float32), TYPES[name], channelwise_axes=others, tiled_axes={tiled: tile_size(kernel.shape[tiled])}
  )
  return {"qvalue": made.qvalue, "scale": made.scale}


def abstract_quantized(shape: tuple[int, ...], name: str) -> dict[str, jax.ShapeDtypeStruct]:
  """What `quantize` makes of a kernel of this shape."""
  return jax.eval_shape(lambda kernel: quantize(kernel, name), jax.ShapeDtypeStruct(shape, jnp.float32))


def dequantize(
  qvalue: Shaped[Array, "*layers inputs outputs"], scale: Float[Array, "*layers tiles outputs"]
) -> Float[Array, "*layers inputs outputs"]:
  """The kernel as float32, bit for bit what `qwix.dequantize` makes of it.

  By selection and not, as there, by a look-up of the flattened codes: on a mesh that one gathers the whole kernel and
  its indices on every device (docs/decisions/0009).
  """
  values = _nf4_values(qvalue) if qvalue.dtype == jnp.uint4 else qvalue.astype(jnp.float32)
  *layers, tiles, outputs = scale.shape
  tiled = values.reshape(*layers, tiles, -1, outputs)
  return (tiled * scale[..., None, :]).reshape(qvalue.shape)


def _nf4_values(qvalue: Array) -> Array:
  """The values that 4-bit codes stand for, by one selection per node of a binary tree over the bits."""
  codes = qvalue.astype(jnp.uint8)

  def select(values: tuple[float, ...]) -> Array:
    if len(values) == 1:
      return jnp.full((), values[0], jnp.float32)
    half = len(values) // 2
    return jnp.where((codes & half) != 0, select(values[half:]), select(values[:half]))

  return select(_nf4_table())


@cache
def _nf4_table() -> tuple[float, ...]:
  """The 16 values in the order of their codes, as qwix has them."""
  with jax.ensure_compile_time_eval():
    codes = jnp.arange(16).astype(jnp.uint4)
    values = qwix.dequantize(qwix.QArray(codes, jnp.ones(1, jnp.float32), None, "nf4"))
  return tuple(float(value) for value in np.asarray(values))
