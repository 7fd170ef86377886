"""Token after token against the whole sequence at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.decode import decode, grow, prefill
from amopo_jax.models.transformer import hidden_states, init_params
from amopo_jax.types import NO_SLOT, PackedRows

LENGTHS, ROOM = (5, 2, 7), 4


@pytest.fixture(scope="module", params=[None, 3], ids=["all", "window"])
def config(request):
  return ModelConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=23,
    width=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=24,
    tie_embeddings=True,
    sliding_window=request.param,
  )


def whole(params, config, tokens):
  """Hidden states of one sequence without padding."""
  place = jnp.arange(len(tokens), dtype=jnp.int32)[None]
  ends, none = jnp.full_like(place, len(tokens)), jnp.full_like(place, NO_SLOT)
  rows = PackedRows(jnp.asarray(tokens, jnp.int32)[None], place, ends, jnp.maximum(place - 1, 0), none)
  return hidden_states(params, config, rows, compute_dtype=jnp.float32, remat="none", attention_chunk=4)[0]


def test_each_new_token_sees_what_it_would_in_the_whole_sequence(config):
  params = init_params(config, jax.random.key(0), jnp.float32)
  params = jax.tree.map(lambda x: x * 20 if x.ndim > 1 else x, params)  # far from uniform attention
  draw, longest = np.random.default_rng(0), max(LENGTHS)
  sequences = [draw.integers(0, 23, length + ROOM) for length in LENGTHS]
  padding = np.asarray([longest - length for length in LENGTHS], np.int32)
  prompts = np.stack([np.pad(s[:n], (longest - n, 0)) for s, n in zip(sequences, LENGTHS, strict=True)])
  expected = [np.asarray(whole(params, config, sequence)) for sequence in sequences]
  hidden, cache = prefill(
    params,
    config,
    jnp.asarray(prompts, jnp.int32),
    jnp.asarray(padding),
    compute_dtype=jnp.float32,
    attention_chunk=4,
  )
  cache = grow(cache, ROOM)
  step = jax.jit(
    lambda tokens, slot, cache: decode(
      params, config, tokens, slot, jnp.asarray(padding), cache, compute_dtype=jnp.float32
    )
  )
  for new in range(ROOM + 1):
    for row, length in enumerate(LENGTHS):
      np.testing.assert_allclose(hidden[row], expected[row][length + new - 1], rtol=2e-4, atol=2e-5)
    if new < ROOM:
      tokens = jnp.asarray([s[n + new] for s, n in zip(sequences, LENGTHS, strict=True)], jnp.int32)
      slot = jnp.asarray(longest + new, jnp.int32)
      hidden, cache = step(tokens, slot, cache)
