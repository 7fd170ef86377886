"""Rotary positions as Hugging Face computes them: the two halves of a head are the two parts of a plane."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from amopo_jax.models.config import ModelConfig, RopeScaling


class Rotation(NamedTuple):
  """The angle of every token in every plane, float32, the same for all heads and layers."""

  cos: Float[Array, "R S 1 half"]
  sin: Float[Array, "R S 1 half"]


def frequencies(config: ModelConfig) -> np.ndarray:
  """Radians per position of each of the Dh/2 planes: θ^(−2i/Dh), then stretched (arXiv 2104.09864)."""
  exponents = np.arange(0, config.head_dim, 2) / config.head_dim
  plain = config.rope_theta**-exponents
  return plain if config.rope_scaling is None else _stretch(plain, config.rope_scaling)


def rotation(config: ModelConfig, positions: Int[Array, "R S"]) -> Rotation:
  """Cosine and sine of position × frequency, once for all layers.

  Args:
    config: gives the frequencies.
    positions: depth of each token in its trie, so that the angles are those of the unshared sequence.
  """
  per_position = jnp.asarray(frequencies(config), jnp.float32)
  angles = positions.astype(jnp.float32)[:, :, None, None] * per_position[None, None, None, :]
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "R S N Dh"], by: Rotation) -> Float[Array, "R S N Dh"]:
  """Turns each head's planes; computed in float32 and rounded once to the type of `x`."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * by.cos - second * by.sin, second * by.cos + first * by.sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _stretch(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
  if scaling.kind == "linear":
    return plain / scaling.factor
  # How many turns a plane makes over the context of pre-training decides how much of it is kept (Llama 3.1).
  turns = scaling.original_max_positions * plain / (2 * math.pi)
  kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
  kept = np.clip(kept, 0.0, 1.0)
  return kept * plain + (1 - kept) * plain / scaling.factor
