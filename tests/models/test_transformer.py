"""Oracle: a decoder in float64 NumPy, one layer and one head at a time, for one plain row without a trie."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.config import ModelConfig, RopeScaling
from amopo_jax.models.rotary import frequencies
from amopo_jax.models.transformer import REMAT, abstract_params, hidden_states, init_params, output_embedding
from amopo_jax.types import InputError, PackedRows

LENGTH = 9
QWEN2 = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=19,
  width=12,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=20,
  qkv_bias=True,
  tie_embeddings=True,
  initializer_range=0.3,
)
QWEN3 = dataclasses.replace(QWEN2, qkv_bias=False, qk_norm=True, tie_embeddings=False, head_dim=6)
LLAMA = dataclasses.replace(
  QWEN2,
  qkv_bias=False,
  tie_embeddings=False,
  rope_scaling=RopeScaling(kind="llama3", factor=4.0, original_max_positions=16),
)
MISTRAL = dataclasses.replace(QWEN2, qkv_bias=False, tie_embeddings=False, sliding_window=4)
FAMILIES = {"qwen2": QWEN2, "qwen3": QWEN3, "llama": LLAMA, "mistral": MISTRAL}


def plain_rows(seed: int = 0, rows: int = 2) -> PackedRows:
  index = np.tile(np.arange(LENGTH), (rows, 1))
  tokens = np.random.default_rng(seed).integers(0, QWEN2.vocab_size, size=(rows, LENGTH))
  fields = (tokens, index, np.full_like(index, LENGTH), np.maximum(index - 1, 0), np.full_like(index, -1))
  return PackedRows(*(jnp.asarray(x, jnp.int32) for x in fields))


def random_params(config: ModelConfig, dtype: Any = jnp.float32) -> dict:
  """Random everywhere, so that a scale or a bias that is left out shows."""
  draw = np.random.default_rng(0)
  shapes = abstract_params(config, dtype)
  return jax.tree.map(lambda x: jnp.asarray(draw.normal(scale=0.5, size=x.shape), x.dtype), shapes)


def run(params: dict, config: ModelConfig, rows: PackedRows, **changes: Any) -> jax.Array:
  settings = {"compute_dtype": jnp.float32, "remat": "none", "attention_chunk": 5} | changes
  return jax.jit(lambda params, rows: hidden_states(params, config, rows, **settings))(params, rows)


def norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def turn(x: np.ndarray, config: ModelConfig) -> np.ndarray:
  """Rotates [S Dh] by its own row numbers; the frequencies have a test of their own (test_rotary)."""
  half = x.shape[-1] // 2
  planes = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * np.outer(np.arange(len(x)), frequencies(config)))
  return np.concatenate([planes.real, planes.imag], axis=-1)


def attend(x: np.ndarray, p: dict, config: ModelConfig) -> np.ndarray:
  size, group = config.head_dim, config.num_heads // config.num_kv_heads

  def head(name: str, n: int) -> np.ndarray:
    columns = slice(n * size, (n + 1) * size)
    y = x @ p[name]["kernel"][:, columns] + (p[name]["bias"][columns] if config.qkv_bias else 0)
    if name != "v" and config.qk_norm:
      y = norm(y, p[f"{name}_norm"]["scale"], config.norm_eps)
    return y if name == "v" else turn(y, config)

  outputs = []
  for n in range(config.num_heads):
    distance = np.subtract.outer(np.arange(len(x)), np.arange(len(x)))
    seen = (distance >= 0) & (distance < (config.sliding_window or len(x)))
    scores = np.where(seen, head("q", n) @ head("k", n // group).T / np.sqrt(size), -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    outputs.append(shares / shares.sum(-1, keepdims=True) @ head("v", n // group))
  return np.concatenate(outputs, axis=-1) @ p["o"]["kernel"]


def oracle(params: dict, config: ModelConfig, tokens: np.ndarray) -> np.ndarray:
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x = params["embed"]["weight"][tokens]
  for layer in range(config.num_layers):
    p = jax.tree.map(lambda x, layer=layer: x[layer], params["layers"])
    x = x + attend(norm(x, p["attn_norm"]["scale"], config.norm_eps), p["attn"], config)
    y = norm(x, p["mlp_norm"]["scale"], config.norm_eps)
    gate = y @ p["mlp"]["gate"]["kernel"]
    x = x + (gate / (1 + np.exp(-gate)) * (y @ p["mlp"]["up"]["kernel"])) @ p["mlp"]["down"]["kernel"]
  return norm(x, params["final_norm"]["scale"], config.norm_eps)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_a_plain_decoder(family: str):
  config, rows = FAMILIES[family], plain_rows()
  params = random_params(config)
  ours = run(params, config, rows)
  expected = np.stack([oracle(params, config, np.asarray(tokens)) for tokens in rows.tokens])
  np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_parameter_tree_is_the_agreed_one():
  found = jax.tree.map(lambda x: x.shape, abstract_params(QWEN2, jnp.float32))
  d, heads, keys, hidden, layers = 12, 16, 8, 20, 3
  attn = {
    name: {"kernel": (layers, d, n), "bias": (layers, n)} for name, n in {"q": heads, "k": keys, "v": keys}.items()
  }
  assert found == {
    "embed": {"weight": (19, d)},
    "layers": {
      "attn_norm": {"scale": (layers, d)},
      "attn": {**attn, "o": {"kernel": (layers, heads, d)}},
      "mlp_norm": {"scale": (layers, d)},
      "mlp": {
        "gate": {"kernel": (layers, d, hidden)},
        "up": {"kernel": (layers, d, hidden)},
        "down": {"kernel": (layers, hidden, d)},
      },
    },
    "final_norm": {"scale": (d,)},
  }


def test_untied_and_normed_models_have_their_extra_leaves():
  found = jax.tree.map(lambda x: x.shape, abstract_params(QWEN3, jnp.float32))
  assert found["lm_head"] == {"weight": (19, 12)}
  assert found["layers"]["attn"]["q_norm"] == {"scale": (3, 6)}
  assert found["layers"]["attn"]["k_norm"] == {"scale": (3, 6)}
  assert set(found["layers"]["attn"]["q"]) == {"kernel"}


def test_initial_parameters_are_seeded_typed_and_differ_between_layers():
  init = jax.jit(lambda rng: init_params(QWEN2, rng, jnp.bfloat16))
  params = init(jax.random.key(3))
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
  assert shapes == abstract_params(QWEN2, jnp.bfloat16)
  same, other = (init(jax.random.key(n))["embed"]["weight"] for n in (3, 4))
  assert (params["embed"]["weight"] == same).all()
  assert (params["embed"]["weight"] != other).any()
  kernel = params["layers"]["mlp"]["gate"]["kernel"].astype(jnp.float32)
  assert abs(float(jnp.corrcoef(kernel[0].ravel(), kernel[1].ravel())[0, 1])) < 0.2
  np.testing.assert_allclose(np.std(kernel), QWEN2.initializer_range, rtol=0.1)
  assert (params["layers"]["attn_norm"]["scale"] == 1).all()
  assert (params["layers"]["attn"]["q"]["bias"] == 0).all()


def test_the_output_embedding_is_the_head_or_the_tied_embedding():
  tied, untied = random_params(QWEN2), random_params(QWEN3)
  assert output_embedding(tied, QWEN2) is tied["embed"]["weight"]
  assert output_embedding(untied, QWEN3) is untied["lm_head"]["weight"]


def test_bfloat16_computes_in_bfloat16_from_float32_parameters():
  params, rows = random_params(QWEN2), plain_rows()
  ours = run(params, QWEN2, rows, compute_dtype=jnp.bfloat16)
  assert ours.dtype == jnp.bfloat16
  wide = run(params, QWEN2, rows)
  np.testing.assert_allclose(ours.astype(jnp.float32), wide, atol=0.05 * float(jnp.abs(wide).max()))


def kept_bytes(remat: str) -> int:
  """Size of what the forward pass hands to the backward pass."""
  rows = plain_rows()

  def backward(params: dict):
    settings = {"compute_dtype": jnp.float32, "remat": remat, "attention_chunk": 4}
    return jax.vjp(lambda params: hidden_states(params, QWEN2, rows, **settings), params)[1]

  kept = jax.eval_shape(backward, abstract_params(QWEN2, jnp.float32))
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


def test_each_remat_policy_keeps_what_it_says():
  tokens, float_size, layers = 2 * LENGTH, 4, QWEN2.num_layers
  base = kept_bytes("full")
  keeps = {name: (kept_bytes(name) - base) / (tokens * float_size * layers) for name in REMAT}
  attention = 16 + QWEN2.num_heads
  """Floats per token: the heads' outputs and the logsumexp of each head."""
  projections = 16 + 8 + 8 + 12 + 20 + 20
  """q, k, v, o, gate, up; nothing needs the result of down."""
  assert keeps["save_attention"] == attention
  assert keeps["dots_no_batch"] == projections
  assert keeps["dots"] == projections + attention
  assert keeps["none"] > keeps["dots"]


def gradient(remat: str) -> list[jax.Array]:
  params, rows = random_params(QWEN2), plain_rows()
  weight = jax.random.normal(jax.random.key(7), (2, LENGTH, QWEN2.width))
  value = lambda params: jnp.sum(weight * run(params, QWEN2, rows, remat=remat, attention_chunk=LENGTH))
  return jax.tree.leaves(jax.jit(jax.grad(value))(params))


@pytest.fixture(scope="module")
def plain_gradient() -> list[jax.Array]:
  return gradient("none")


@pytest.mark.parametrize("remat", [name for name in REMAT if name != "none"])
def test_remat_changes_no_gradient(remat: str, plain_gradient: list[jax.Array]):
  for mine, theirs in zip(gradient(remat), plain_gradient, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * float(jnp.abs(theirs).max()))


def test_an_unknown_remat_policy_is_refused_with_the_choices():
  with pytest.raises(InputError, match=r"'half' is unknown; choose one of none, dots"):
    run(random_params(QWEN2), QWEN2, plain_rows(), remat="half")


def test_the_constrain_hook_sees_every_residual_stream():
  seen = []

  def constrain(x: jax.Array, kind: str) -> jax.Array:
    seen.append((kind, x.shape))
    return 2 * x

  params, rows = random_params(QWEN2), plain_rows()
  changed = run(params, QWEN2, rows, constrain=constrain)
  # Once for the embedding and once in the body of the scan over the layers (which may be traced again).
  assert len(seen) >= 2
  stream, angles = (2, LENGTH, QWEN2.width), (2, LENGTH, 1, QWEN2.head_dim // 2)
  assert set(seen) == {("embedded", stream), ("residual", stream), ("residual", angles)}
  assert not np.allclose(changed, run(params, QWEN2, rows))


def test_the_program_does_not_grow_with_the_number_of_layers():
  def lines(num_layers: int) -> int:
    config = dataclasses.replace(QWEN2, num_layers=num_layers)
    call = lambda params, rows: hidden_states(
      params, config, rows, compute_dtype=jnp.float32, remat="full", attention_chunk=4
    )
    text = jax.jit(call).lower(abstract_params(config, jnp.float32), plain_rows()).as_text()
    return len(text.splitlines())

  assert lines(2) == lines(8)
