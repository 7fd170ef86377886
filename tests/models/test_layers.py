import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.layers import Linear, RMSNorm, SwiGLU, Table

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=7,
  width=8,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  mlp_width=12,
  norm_eps=1e-3,
  initializer_range=0.5,
)


def random_input(dtype=jnp.float32) -> jax.Array:
  return jax.random.normal(jax.random.key(1), (2, 3, CONFIG.width), dtype)


def test_rms_norm_divides_by_the_root_mean_square_and_scales():
  norm = RMSNorm(CONFIG, CONFIG.width, dtype=jnp.float32)
  norm.scale[...] = jnp.arange(1.0, 1.0 + CONFIG.width)
  x = 0.01 * random_input()
  wide = np.asarray(x, np.float64)
  expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * np.arange(1, 1 + CONFIG.width)
  np.testing.assert_allclose(norm(x), expected, rtol=1e-5)


def test_rms_norm_of_bfloat16_is_computed_in_float32():
  norm = RMSNorm(CONFIG, CONFIG.width, dtype=jnp.bfloat16)
  x = 100 * random_input(jnp.bfloat16)
  assert norm(x).dtype == jnp.bfloat16
  np.testing.assert_array_equal(norm(x), norm(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_linear_casts_its_parameters_to_the_type_of_its_input():
  linear = Linear(CONFIG, CONFIG.width, 5, bias=True, dtype=jnp.float32, rngs=nnx.Rngs(0))
  linear.bias[...] = jnp.arange(5.0)
  x = random_input()
  expected = np.asarray(x) @ np.asarray(linear.kernel[...]) + np.arange(5.0)
  np.testing.assert_allclose(linear(x), expected, rtol=1e-5, atol=1e-5)
  assert linear(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("outputs", [3, 8, 20])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_linear_are_those_of_a_matrix_product(outputs, dtype):
  linear = Linear(CONFIG, CONFIG.width, outputs, dtype=jnp.float32, rngs=nnx.Rngs(0))
  x = random_input(dtype)
  pull = jax.random.normal(jax.random.key(2), (2, 3, outputs), dtype)
  graph, params = nnx.split(linear)
  y, transpose = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
  d_params, d_x = transpose(pull)
  kernel, *wide = (np.asarray(a.astype(dtype), np.float64) for a in (linear.kernel[...], x, pull))
  rtol, atol = (1e-5, 1e-5) if dtype == jnp.float32 else (1e-2, 2e-2)
  np.testing.assert_allclose(np.asarray(y, np.float64), wide[0] @ kernel, rtol=rtol, atol=atol)
  np.testing.assert_allclose(np.asarray(d_x, np.float64), wide[1] @ kernel.T, rtol=rtol, atol=atol)
  expected = np.einsum("rsi,rso->io", *wide)
  np.testing.assert_allclose(np.asarray(d_params["kernel"][...], np.float64), expected, rtol=rtol, atol=atol)
  assert d_x.dtype == dtype
  assert d_params["kernel"][...].dtype == jnp.float32


def test_swiglu_gates_the_up_projection():
  mlp = SwiGLU(CONFIG, dtype=jnp.float32, rngs=nnx.Rngs(0))
  x = random_input()
  gate, up, down = (np.asarray(part.kernel[...], np.float64) for part in (mlp.gate, mlp.up, mlp.down))
  gated = np.asarray(x) @ gate
  expected = (gated / (1 + np.exp(-gated)) * (np.asarray(x) @ up)) @ down
  np.testing.assert_allclose(mlp(x), expected, rtol=1e-4, atol=1e-5)


def test_a_token_outside_the_vocabulary_is_nan_and_not_another_word():
  table = Table(CONFIG, dtype=jnp.float32, rngs=nnx.Rngs(0))
  found = table(jnp.array([[0, 6, 7]], jnp.int32))
  np.testing.assert_array_equal(found[0, :2], table.weight[...][jnp.array([0, 6])])
  assert np.isnan(found[0, 2]).all()


def test_initial_weights_have_the_declared_spread():
  wide = dataclasses.replace(CONFIG, vocab_size=2000)
  weight = Table(wide, dtype=jnp.float32, rngs=nnx.Rngs(0)).weight[...]
  np.testing.assert_allclose(np.std(weight), 0.5, rtol=0.02)
  np.testing.assert_allclose(np.mean(weight), 0.0, atol=0.02)
