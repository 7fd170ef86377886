"""Adapters in the decoder: the layer against its formula, and what a frozen base costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amopo_jax.models import lora
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_names import get_leaf, set_leaf
from amopo_jax.models.layers import Linear, QuantizedKernel
from amopo_jax.models.quantized import quantize
from amopo_jax.models.transformer import hidden_states, init_params
from amopo_jax.types import InputError, PackedRows

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=64,
  width=64,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_width=96,
  qkv_bias=True,
)
ALL = r"layers/.*/kernel"
ROWS = PackedRows(
  tokens=jnp.arange(24).reshape(2, 12),
  positions=jnp.broadcast_to(jnp.arange(12), (2, 12)),
  subtree_end=jnp.full((2, 12), 12),
  parent=jnp.broadcast_to(jnp.maximum(jnp.arange(12) - 1, 0), (2, 12)),
  slot=jnp.zeros((2, 12), int),
)


def compute(params, remat="full"):
  return hidden_states(params, CONFIG, ROWS, compute_dtype=jnp.float32, remat=remat, attention_chunk=12)


def some_adapters(rank=4, targets=ALL, **arguments):
  """Adapters as after some training: B is not zero any more."""
  made = lora.init_adapters(CONFIG, jax.random.key(1), rank=rank, targets=targets, dtype=jnp.float32, **arguments)
  return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), made)


def base_of(params, kernel_type):
  base = jax.tree.map(lambda leaf: leaf, params)
  for leaf in lora.kernel_leaves(CONFIG):
    set_leaf(base, leaf.path, lora.as_kernel(get_leaf(params, leaf.path), kernel_type))
  return base


@pytest.fixture(scope="module")
def params():
  return init_params(CONFIG, jax.random.key(0), jnp.float32)


def linear(kernel, bias, kernel_type):
  """A layer as a function of (x, A, B), and the kernel it uses as floats."""
  layer, made = Linear(CONFIG, *kernel.shape, bias=True, dtype=jnp.float32, rngs=nnx.Rngs(0)), kernel
  layer.add_adapters()
  if kernel_type != "float32":
    made, layer.kernel = quantize(kernel, kernel_type), QuantizedKernel()
  graph = nnx.graphdef(layer)
  apply = lambda x, a, b: nnx.merge(graph, {"kernel": made, "bias": bias, "lora_a": a, "lora_b": b})(x)
  return apply, lora.float_kernel(made, jnp.float32)


@pytest.mark.parametrize("kernel_type", ["float32", "int8", "nf4"])
def test_the_layer_and_its_gradients_are_those_of_the_formula(kernel_type):
  """y = x W + x A B + b and, for Σ c ⊙ y: dx = c Wᵀ + c Bᵀ Aᵀ, dA = xᵀ c Bᵀ, dB = (x A)ᵀ c, in float64."""
  shapes = ((2, 5, 64), (64, 48), (64, 4), (4, 48), (48,), (2, 5, 48))
  rng = np.random.default_rng(0)
  x, w, a, b, bias, c = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
  apply, used = linear(w, bias, kernel_type)
  value = lambda x, a, b: (jnp.sum(c * (y := apply(x, a, b))), y)
  (d_x, d_a, d_b), y = jax.grad(value, (0, 1, 2), has_aux=True)(x, a, b)
  x, w, a, b, bias, c = (np.asarray(v, np.float64) for v in (x, used, a, b, bias, c))
  np.testing.assert_allclose(y, x @ w + x @ a @ b + bias, rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(d_x, c @ w.T + c @ b.T @ a.T, rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(d_a, np.einsum("rsi,rsq->iq", x, c @ b.T), rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(d_b, np.einsum("rsq,rso->qo", x @ a, c), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernel_type", ["float32", "int8", "nf4"])
def test_new_adapters_change_nothing_bit_for_bit(params, kernel_type):
  base = base_of(params, kernel_type)
  fresh = lora.init_adapters(CONFIG, jax.random.key(1), rank=4, targets=ALL, dtype=jnp.float32)
  np.testing.assert_array_equal(compute(lora.join(fresh, base, 2.0)), compute(base))
  bound = np.abs(fresh["layers"]["mlp"]["down"]["lora_a"]).max()
  assert 0.9 / np.sqrt(96) < bound <= 1 / np.sqrt(96)


@pytest.mark.parametrize("kernel_type", ["float32", "bfloat16", "int8", "nf4"])
def test_merged_kernels_compute_what_base_and_adapters_do(params, kernel_type):
  base, adapters = base_of(params, kernel_type), some_adapters(targets=r"layers/(attn/[qo]|mlp/.*)/kernel")
  merged = jax.tree.map(lambda leaf: leaf, base)
  for leaf in lora.kernel_leaves(CONFIG):
    kernel, pair = get_leaf(base, leaf.path), lora.adapters_at(adapters, leaf)
    made = lora.merge_kernel(kernel, *pair, 2.0, jnp.float32) if pair else lora.float_kernel(kernel, jnp.float32)
    set_leaf(merged, leaf.path, made)
  together = compute(lora.join(adapters, base, 2.0))
  np.testing.assert_allclose(compute(merged), together, atol=1e-5)
  assert np.abs(together - compute(base)).max() > 0.1


def test_a_gradient_along_any_direction_is_the_slope_there(params):
  adapters, base = some_adapters(), base_of(params, "nf4")
  direction = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size + 1), x.shape), adapters)
  along = jax.jit(
    lambda t: jnp.mean(compute(lora.join(jax.tree.map(lambda x, d: x + t * d, adapters, direction), base, 2.0)) ** 3)
  )
  slope = (along(2e-4) - along(-2e-4)) / 4e-4
  np.testing.assert_allclose(jax.grad(along)(0.0), slope, rtol=3e-2)


def test_only_the_targets_get_adapters_and_the_draws_of_one_do_not_depend_on_the_others():
  few = lora.init_adapters(CONFIG, jax.random.key(1), rank=2, targets=r".*/[qv]/kernel", dtype=jnp.float32)
  assert {name: set(layer) for name, layer in few["layers"]["attn"].items()} == {
    "q": {"lora_a", "lora_b"},
    "v": {"lora_a", "lora_b"},
  }
  every = lora.init_adapters(CONFIG, jax.random.key(1), rank=2, targets=ALL, dtype=jnp.float32)
  np.testing.assert_array_equal(few["layers"]["attn"]["v"]["lora_a"], every["layers"]["attn"]["v"]["lora_a"])
  assert len(jax.tree.leaves(every)) == 2 * len(lora.kernel_leaves(CONFIG)) == 14


@pytest.mark.parametrize(
  "targets, message",
  [("(", r"'\(' is no regular expression"), ("embed.*", r"matches no kernel; there are layers/attn/q")],
)
def test_targets_that_cannot_be_are_refused(targets, message):
  with pytest.raises(InputError, match=rf"config\.lora\.targets: .*{message}"):
    lora.target_leaves(CONFIG, targets)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_quantized_kernel_is_never_kept_as_floats_for_the_backward_pass(params, remat):
  """Temporaries of the gradient hold fewer bytes than half of the kernels as floats would, with 12 tokens a row."""
  adapters, base = some_adapters(rank=1), base_of(params, "int8")
  gradient = jax.grad(lambda adapters, base: jnp.mean(compute(lora.join(adapters, base, 2.0), remat)))
  memory = jax.jit(gradient).lower(adapters, base).compile().memory_analysis()
  floats = jax.jit(gradient).lower(adapters, base_of(params, "float32")).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 1.1 * floats.temp_size_in_bytes + 4 * 64 * 96
  assert memory.argument_size_in_bytes < 0.5 * floats.argument_size_in_bytes


def test_the_gradient_of_the_frozen_kernels_is_not_computed(params):
  adapters = some_adapters(rank=1)
  frozen = jax.grad(lambda adapters, base: jnp.mean(compute(lora.join(adapters, base, 2.0), "none")))
  whole = jax.grad(lambda params: jnp.mean(compute(params, "none")))
  flops = lambda f, *arguments: jax.jit(f).lower(*arguments).compile().cost_analysis()["flops"]
  assert flops(frozen, adapters, params) < 0.85 * flops(whole, params)


def test_the_scale_of_bfloat16_adapters_is_not_rounded():
  b = jnp.asarray([[[3.0, 1.5]]], jnp.bfloat16)
  joined = lora.join({"q": {"lora_b": b}}, {"q": {}}, 16 / 24)
  np.testing.assert_array_equal(joined["q"]["lora_b"], jnp.asarray([[[2.0, 1.0]]], jnp.bfloat16))
