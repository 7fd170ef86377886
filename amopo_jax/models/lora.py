"""Low-rank adapters (LoRA, arXiv 2106.09685): what is trained beside a frozen base, and how the two become one.

    y = x W + (α / r) (x A) B        A [in r] random, B [r out] zero at the start, so that step 0 is the base

The trees are those of the decoder's parameters: the adapters of the linear layer at `layers/attn/q` are
`layers/attn/q/lora_a` [L in r] and `layers/attn/q/lora_b` [L r out], the base has everything else, where a quantized
kernel is `layers/attn/q/kernel/{qvalue,scale}`.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_names import Leaf, get_leaf, leaves, set_leaf
from amopo_jax.models.quantized import TYPES, abstract_quantized, dequantize, quantize
from amopo_jax.models.transformer import abstract_params
from amopo_jax.types import InputError, Params

Kernel = Array | dict[str, Array]
"""A kernel in a float type, or `quantized.quantize` of one."""


def kernel_leaves(config: ModelConfig) -> tuple[Leaf, ...]:
  """The kernels of all linear layers; embedding and head are tables, not linear layers."""
  return tuple(leaf for leaf in leaves(config) if leaf.path[-1] == "kernel")


def target_leaves(config: ModelConfig, targets: str) -> tuple[Leaf, ...]:
  """The kernels that get adapters.

  Args:
    config: the decoder.
    targets: regular expression that matches all of a kernel's path, such as `layers/attn/q/kernel`.

  Raises:
    InputError: it is no regular expression, or matches nothing.
  """
  try:
    found = tuple(leaf for leaf in kernel_leaves(config) if re.fullmatch(targets, "/".join(leaf.path)))
  except re.error as error:
    raise InputError(f"config.lora.targets: {targets!r} is no regular expression ({error}); correct it") from None
  if not found:
    names = ", ".join("/".join(leaf.path) for leaf in kernel_leaves(config))
    raise InputError(f"config.lora.targets: {targets!r} matches no kernel; there are {names}")
  return found


def init_adapters(config: ModelConfig, rng: Array, *, rank: int, targets: str, dtype: Any) -> Params:
  """Adapters that change nothing yet: A uniform within ±1/√in, as the paper's own code draws it, and B zero.

  Args:
    config: the decoder.
    rng: key.
    rank: r, at least 1.
    targets: of `target_leaves`.
    dtype: of all of them.
  """
  adapters: Params = {}
  numbers = {leaf.path: number for number, leaf in enumerate(kernel_leaves(config))}
  for leaf in target_leaves(config, targets):
    layers, inputs, outputs = leaf.shape
    bound, key = 1 / math.sqrt(inputs), jax.random.fold_in(rng, numbers[leaf.path])
    a = jax.random.uniform(key, (layers, inputs, rank), jnp.float32, -bound, bound)
    set_leaf(adapters, (*leaf.path[:-1], "lora_a"), a.astype(dtype))
    set_leaf(adapters, (*leaf.path[:-1], "lora_b"), jnp.zeros((layers, rank, outputs), dtype))
  return adapters


def abstract_adapters(config: ModelConfig, *, rank: int, targets: str, dtype: Any) -> Params:
  """The tree of `init_adapters` as shapes and types."""
  make = lambda: init_adapters(config, jax.random.key(0), rank=rank, targets=targets, dtype=dtype)
  return jax.eval_shape(make)


def abstract_base(config: ModelConfig, *, dtype: Any, kernel_type: str) -> Params:
  """The frozen tree as shapes and types.

  Args:
    config: the decoder.
    dtype: of everything but the kernels: embedding, head, norms, biases.
    kernel_type: of the kernels: a name of `quantized.TYPES`, or of a float type.
  """
  base = abstract_params(config, dtype)
  for leaf in kernel_leaves(config):
    float_kernel = lambda leaf=leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(kernel_type))
    made = abstract_quantized(leaf.shape, kernel_type) if kernel_type in TYPES else float_kernel()
    set_leaf(base, leaf.path, made)
  return base


def as_kernel(kernel: Float[Array, "*layers inputs outputs"], kernel_type: str) -> Kernel:
  """A kernel in the base's type."""
  return quantize(kernel, kernel_type) if kernel_type in TYPES else kernel.astype(kernel_type)


def join(adapters: Params, base: Params, scale: float) -> Params:
  """The tree that the decoder computes with: base and adapters side by side, with α / r put into B.

  Args:
    adapters: of `init_adapters`.
    base: the frozen tree.
    scale: α / r.
  """
  joined = dict(base)
  for name, value in adapters.items():
    if isinstance(value, dict):
      joined[name] = join(value, base[name], scale)
    else:
      scaled = lambda b: (b.astype(jnp.float32) * scale).astype(b.dtype)  # α / r has more digits than bfloat16
      joined[name] = scaled(value) if name == "lora_b" else value
  return joined


def merge_kernel(
  kernel: Kernel, lora_a: Float[Array, "L inputs r"], lora_b: Float[Array, "L r outputs"], scale: float, dtype: Any
) -> Float[Array, "L inputs outputs"]:
  """W + (α / r) A B, added up in float32.

  Args:
    kernel: W, quantized or not.
    lora_a, lora_b: A and B.
    scale: α / r.
    dtype: of the result.
  """
  a, b = lora_a.astype(jnp.float32), lora_b.astype(jnp.float32)
  change = jnp.einsum("lir,lro->lio", a, b, precision=jax.lax.Precision.HIGHEST)
  return (float_kernel(kernel, jnp.float32) + scale * change).astype(dtype)


def float_kernel(kernel: Kernel, dtype: Any) -> Float[Array, "*axes"]:
  """A kernel, or any other parameter, of the base as floats."""
  return (dequantize(**kernel) if isinstance(kernel, dict) else kernel).astype(dtype)


def adapters_at(adapters: Params, leaf: Leaf) -> tuple[Array, Array] | None:
  """A and B of a kernel, None if it has none or is another parameter."""
  if leaf.path[-1] != "kernel":
    return None
  try:
    layer = get_leaf(adapters, leaf.path[:-1])
  except KeyError:
    return None
  return layer["lora_a"], layer["lora_b"]
