"""Token after token against the whole sequence at once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models import decode as module
from amopo_jax.models.cache import grow
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.decode import make_decode_fn, prefill
from amopo_jax.models.transformer import hidden_states, init_params
from amopo_jax.types import NO_SLOT, PackedRows

LENGTHS, ROOM = (5, 2, 7), 4


@pytest.fixture(scope="module", params=[(None, 8), (3, 8), (None, 16)], ids=["narrow heads", "window", "wide heads"])
def config(request):
  window, head_dim = request.param
  return ModelConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=23,
    width=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=head_dim,
    mlp_width=24,
    tie_embeddings=True,
    sliding_window=window,
  )


def whole(params, config, tokens):
  """Hidden states of one sequence without padding."""
  place = jnp.arange(len(tokens), dtype=jnp.int32)[None]
  ends, none = jnp.full_like(place, len(tokens)), jnp.full_like(place, NO_SLOT)
  rows = PackedRows(jnp.asarray(tokens, jnp.int32)[None], place, ends, jnp.maximum(place - 1, 0), none)
  return hidden_states(params, config, rows, compute_dtype=jnp.float32, remat="none", attention_chunk=4)[0]


@pytest.mark.parametrize("most_stacks", [3, 2], ids=["a stack for each layer", "one stack"])
def test_each_new_token_sees_what_it_would_in_the_whole_sequence(config, most_stacks, monkeypatch):
  monkeypatch.setattr(module, "_MOST_STACKS", most_stacks)
  params = init_params(config, jax.random.key(0), jnp.float32)
  params = jax.tree.map(lambda x: x * 20 if x.ndim > 1 else x, params)  # far from uniform attention
  draw, longest = np.random.default_rng(0), max(LENGTHS)
  sequences = [draw.integers(0, 23, length + ROOM) for length in LENGTHS]
  padding = np.asarray([longest - length for length in LENGTHS], np.int32)
  prompts = np.stack([np.pad(s[:n], (longest - n, 0)) for s, n in zip(sequences, LENGTHS, strict=True)])
  expected = [np.asarray(whole(params, config, sequence)) for sequence in sequences]
  cache = prefill(
    params,
    config,
    jnp.asarray(prompts, jnp.int32),
    jnp.asarray(padding),
    compute_dtype=jnp.float32,
    attention_chunk=4,
  )
  assert len(cache.keys) == len(cache.values) == (1 if most_stacks < config.num_layers else config.num_layers)
  cache = grow(cache, longest + ROOM)
  decode_fn = make_decode_fn(params, config, jnp.asarray(padding), longest + ROOM, compute_dtype=jnp.float32)
  step = jax.jit(decode_fn)
  for new in range(-1, ROOM):  # first the last token of the prompts again
    tokens = jnp.asarray([s[n + new] for s, n in zip(sequences, LENGTHS, strict=True)], jnp.int32)
    hidden, cache = step(tokens, jnp.asarray(longest + new, jnp.int32), cache)
    for row, length in enumerate(LENGTHS):
      np.testing.assert_allclose(hidden[row], expected[row][length + new], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("is_apart", [True, False])
def test_a_token_is_written_in_place(config, is_apart):
  rows, num_slots = 4, 32
  params = init_params(config, jax.random.key(0), jnp.float32)
  tokens, padding = jnp.zeros((rows, 8), jnp.int32), jnp.zeros(rows, jnp.int32)

  def generate(params):
    cache = prefill(params, config, tokens, padding, compute_dtype=jnp.float32, attention_chunk=4)
    decode_fn = make_decode_fn(params, config, padding, num_slots, compute_dtype=jnp.float32, is_apart=is_apart)

    def one_more(slot, carried):
      last, cache = carried
      hidden, cache = decode_fn(last, slot, cache)
      return jnp.argmax(hidden, axis=-1).astype(jnp.int32), cache

    return jax.lax.fori_loop(8, num_slots, one_more, (tokens[:, 0], grow(cache, num_slots)))[0]

  text = jax.jit(generate).lower(params).compile().as_text()
  loops = [part for part in text.split("\n\n") if "dynamic-update-slice" in part and not part.startswith("ENTRY")]
  size = config.head_dim
  groups = rf"(2,({size},{num_slots}|{num_slots},{size})|{2 * size},{num_slots})"
  of_cache = re.compile(rf"f32\[(1,)?{rows},{groups}\]\S* copy\(")
  assert any("dynamic_update_slice" in part for part in loops)
  assert not any(of_cache.search(part) for part in loops)


def test_what_all_tokens_share_is_not_computed_with_each(config):
  params = init_params(config, jax.random.key(0), jnp.float32)
  tokens, padding = jnp.zeros((2, 8), jnp.int32), jnp.zeros(2, jnp.int32)
  cache = grow(prefill(params, config, tokens, padding, compute_dtype=jnp.float32, attention_chunk=4), 16)
  decode_fn = make_decode_fn(params, config, padding, 16, compute_dtype=jnp.float32)
  one_token = str(jax.make_jaxpr(decode_fn)(tokens[:, 0], jnp.asarray(8), cache))
  of_layer = f"f32[1,{config.width},{config.mlp_width}]"
  assert of_layer in one_token
  assert not re.search(rf"{re.escape(of_layer)} = slice|= cos ", one_token)
