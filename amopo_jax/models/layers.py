"""The parts of a decoder block, as flax.nnx modules whose attributes spell the parameter tree.

Every module computes in the type of its input and casts its parameters to it; norms compute in float32.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from amopo_jax.models.attention import Attention
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.quantized import dequantize
from amopo_jax.models.rotary import Rotation, rotate


class Places(NamedTuple):
  """Where the tokens of the rows stand in their tries; the same for all layers."""

  rotation: Rotation
  positions: Int[Array, "R S"]
  subtree_end: Int[Array, "R S"]


class Table(nnx.Module):
  """One vector per word of the vocabulary: the input embedding, and the output head of an untied model."""

  def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
    self.weight = nnx.Param(_normal(config, (config.vocab_size, config.width), dtype, rngs))

  def __call__(self, tokens: Int[Array, "R S"]) -> Float[Array, "R S D"]:
    """Looks the tokens up; one outside the vocabulary becomes NaN, which training reports."""
    return jnp.take(self.weight[...], tokens, axis=0, mode="fill")


class QuantizedKernel(nnx.Module):
  """A frozen kernel in 8 or 4 bits; its parameters come from `quantized.quantize`, never from here."""

  def __init__(self) -> None:
    self.qvalue = nnx.Param(jnp.zeros((1, 1), jnp.int8))
    self.scale = nnx.Param(jnp.zeros((1, 1), jnp.float32))


class Linear(nnx.Module):
  """x W + b over the last axis, and + (x A) B where it was given adapters."""

  kernel: nnx.Param | QuantizedKernel

  def __init__(
    self, config: ModelConfig, inputs: int, outputs: int, *, bias: bool = False, dtype: Any, rngs: nnx.Rngs
  ) -> None:
    self.kernel = nnx.Param(_normal(config, (inputs, outputs), dtype, rngs))
    if bias:
      self.bias = nnx.Param(jnp.zeros(outputs, dtype))
    self.has_bias, self.has_adapters = bias, False

  def add_adapters(self) -> None:
    """Makes places for A and B; their values come from `lora.join`, with α / r in B."""
    self.lora_a = nnx.Param(jnp.zeros((1, 1)))
    self.lora_b = nnx.Param(jnp.zeros((1, 1)))
    self.has_adapters = True

  def __call__(self, x: Float[Array, "R S inputs"]) -> Float[Array, "R S outputs"]:
    if isinstance(self.kernel, QuantizedKernel):
      y = _project_quantized(x, self.kernel.qvalue[...], self.kernel.scale[...])
    else:
      y = _project(x, self.kernel[...].astype(x.dtype))
    if self.has_adapters:
      y = y + _project(_project(x, self.lora_a[...].astype(x.dtype)), self.lora_b[...].astype(x.dtype))
    return y + self.bias[...].astype(x.dtype)[None, None, :] if self.has_bias else y


class RMSNorm(nnx.Module):
  """x / √(mean x² + ε) · scale over the last axis, computed in float32 (arXiv 1910.07467)."""

  def __init__(self, config: ModelConfig, size: int, *, dtype: Any) -> None:
    self.scale = nnx.Param(jnp.ones(size, dtype))
    self.eps = config.norm_eps

  def __call__(self, x: Float[Array, "*axes size"]) -> Float[Array, "*axes size"]:
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
    scale = jnp.broadcast_to(self.scale[...].astype(jnp.float32), x.shape)
    return (wide * inverse * scale).astype(x.dtype)


class SelfAttention(nnx.Module):
  """Grouped-query attention with rotary positions, over the ancestors in the trie."""

  def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    self.q = Linear(config, config.width, queries, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
    self.k = Linear(config, config.width, keys, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
    self.v = Linear(config, config.width, keys, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
    self.o = Linear(config, queries, config.width, dtype=dtype, rngs=rngs)
    if config.qk_norm:
      self.q_norm = RMSNorm(config, config.head_dim, dtype=dtype)
      self.k_norm = RMSNorm(config, config.head_dim, dtype=dtype)
    self.config = config

  def __call__(self, x: Float[Array, "R S D"], places: Places, attend: Attention) -> Float[Array, "R S D"]:
    heads = lambda y: y.reshape(*y.shape[:2], -1, self.config.head_dim)
    q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
    if self.config.qk_norm:
      q, k = self.q_norm(q), self.k_norm(k)
    q, k = rotate(q, places.rotation), rotate(k, places.rotation)
    window = self.config.sliding_window
    y = attend(q, k, v, places.subtree_end, positions=places.positions, window=window)
    return self.o(y.reshape(*y.shape[:2], -1))


class SwiGLU(nnx.Module):
  """(silu(x W_gate) ⊙ x W_up) W_down (arXiv 2002.05202)."""

  def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
    self.gate = Linear(config, config.width, config.mlp_width, dtype=dtype, rngs=rngs)
    self.up = Linear(config, config.width, config.mlp_width, dtype=dtype, rngs=rngs)
    self.down = Linear(config, config.mlp_width, config.width, dtype=dtype, rngs=rngs)

  def __call__(self, x: Float[Array, "R S D"]) -> Float[Array, "R S D"]:
    return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
  """One decoder layer: attention, then SwiGLU, each behind a norm and added to the residual stream."""

  def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
    self.attn_norm = RMSNorm(config, config.width, dtype=dtype)
    self.attn = SelfAttention(config, dtype=dtype, rngs=rngs)
    self.mlp_norm = RMSNorm(config, config.width, dtype=dtype)
    self.mlp = SwiGLU(config, dtype=dtype, rngs=rngs)

  def __call__(self, x: Float[Array, "R S D"], places: Places, attend: Attention) -> Float[Array, "R S D"]:
    x = x + self.attn(self.attn_norm(x), places, attend)
    return x + self.mlp(self.mlp_norm(x))


@jax.custom_vjp
def _project(x: Float[Array, "R S inputs"], weight: Float[Array, "inputs outputs"]) -> Float[Array, "R S outputs"]:
  """x W, whose gradient of W is a product that transposes the smaller of its two operands.

  JAX's own gives the compiler no choice: on a CPU it copies the gradient of the larger one into another layout.
  """
  return jnp.dot(x, weight)


def _project_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
  return jnp.dot(x, weight), (x, weight)


def _project_backward(kept: tuple[Array, Array], d_y: Array) -> tuple[Array, Array]:
  x, weight = kept
  d_x = jnp.einsum("rso,io->rsi", d_y, weight)
  if weight.shape[0] <= weight.shape[1]:
    return d_x, jnp.einsum("rsi,rso->io", x, d_y)
  return d_x, jnp.einsum("rso,rsi->oi", d_y, x).T


_project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def _project_quantized(
  x: Float[Array, "R S inputs"], qvalue: Shaped[Array, "inputs outputs"], scale: Float[Array, "tiles outputs"]
) -> Float[Array, "R S outputs"]:
  """x W with a frozen W, which is kept for the backward pass in its few bits and not as floats, whatever `remat` is."""
  return jnp.dot(x, dequantize(qvalue, scale).astype(x.dtype))


def _project_quantized_forward(x: Array, qvalue: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
  return _project_quantized(x, qvalue, scale), (qvalue, scale)


def _project_quantized_backward(kept: tuple[Array, Array], d_y: Array) -> tuple[Array, None, None]:
  return jnp.einsum("rso,io->rsi", d_y, dequantize(*kept).astype(d_y.dtype)), None, None


_project_quantized.defvjp(_project_quantized_forward, _project_quantized_backward)


def _normal(config: ModelConfig, shape: tuple[int, int], dtype: Any, rngs: nnx.Rngs) -> Array:
  return (config.initializer_range * jax.random.normal(rngs.params(), shape)).astype(dtype)
