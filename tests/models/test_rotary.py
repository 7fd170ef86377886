"""Oracle: a plane is a complex number, turning it by an angle is a product; everything in float64."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.config import ModelConfig, RopeScaling
from amopo_jax.models.rotary import frequencies, rotate, rotation

HEAD_DIM = 8
CONFIG = ModelConfig(
  architecture="LlamaForCausalLM",
  vocab_size=32,
  width=8,
  num_layers=1,
  num_heads=2,
  num_kv_heads=2,
  head_dim=HEAD_DIM,
  mlp_width=16,
  rope_theta=10_000.0,
)
PLAIN = np.array([10_000.0 ** (-2 * i / HEAD_DIM) for i in range(HEAD_DIM // 2)])
LLAMA3 = RopeScaling(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=256)


def turned(x: np.ndarray, positions: np.ndarray, per_position: np.ndarray) -> np.ndarray:
  half = x.shape[-1] // 2
  planes = x[..., :half] + 1j * x[..., half:]
  planes = planes * np.exp(1j * positions[:, :, None, None] * per_position)
  return np.concatenate([planes.real, planes.imag], axis=-1)


def test_rotation_is_a_complex_product():
  draw = np.random.default_rng(0)
  x = draw.normal(size=(2, 5, 3, HEAD_DIM)).astype(np.float32)
  positions = draw.integers(0, 4000, size=(2, 5)).astype(np.int32)
  ours = rotate(jnp.asarray(x), rotation(CONFIG, jnp.asarray(positions)))
  # Angles are float32: at 4000 radians they are exact to 2.4e-4.
  np.testing.assert_allclose(ours, turned(x, positions, PLAIN), atol=1e-3)


def test_scores_depend_on_the_distance_alone():
  draw = np.random.default_rng(1)
  q, k = (jnp.asarray(draw.normal(size=(1, 1, 1, HEAD_DIM)), jnp.float32) for _ in range(2))
  at = lambda x, position: rotate(x, rotation(CONFIG, jnp.full((1, 1), position, jnp.int32)))
  near, far = (jnp.sum(at(q, base + 7) * at(k, base)) for base in (0, 500))
  np.testing.assert_allclose(near, far, rtol=1e-4)
  assert abs(near - jnp.sum(at(q, 8) * at(k, 0))) > 1e-2


def test_bfloat16_is_rounded_once():
  draw = np.random.default_rng(2)
  x = jnp.asarray(draw.normal(size=(1, 4, 2, HEAD_DIM)), jnp.bfloat16)
  by = rotation(CONFIG, jnp.arange(4, dtype=jnp.int32)[None])
  ours = rotate(x, by)
  assert ours.dtype == jnp.bfloat16
  np.testing.assert_array_equal(ours, rotate(x.astype(jnp.float32), by).astype(jnp.bfloat16))


def test_linear_scaling_divides_every_frequency():
  scaled = dataclasses.replace(CONFIG, rope_scaling=RopeScaling(kind="linear", factor=4.0))
  np.testing.assert_allclose(frequencies(scaled), PLAIN / 4, rtol=1e-12)


def test_llama3_scaling_keeps_short_waves_stretches_long_ones_and_blends_between():
  low, high, context = LLAMA3.low_freq_factor, LLAMA3.high_freq_factor, LLAMA3.original_max_positions

  def expected(frequency: float) -> float:
    wavelength = 2 * math.pi / frequency
    if wavelength < context / high:
      return frequency
    if wavelength > context / low:
      return frequency / LLAMA3.factor
    smooth = (context / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / LLAMA3.factor + smooth * frequency

  ours = frequencies(dataclasses.replace(CONFIG, rope_scaling=LLAMA3, head_dim=64))
  plain = [10_000.0 ** (-2 * i / 64) for i in range(32)]
  np.testing.assert_allclose(ours, [expected(f) for f in plain], rtol=1e-12)
  kinds = {round(float(a / b), 6) for a, b in zip(ours, plain, strict=True)}
  assert 1.0 in kinds
  assert 1 / LLAMA3.factor in kinds
  assert len(kinds) > 2


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_theta_is_the_base(theta: float):
  ours = frequencies(dataclasses.replace(CONFIG, rope_theta=theta))
  np.testing.assert_allclose(ours, [1, theta**-0.25, theta**-0.5, theta**-0.75], rtol=1e-12)
