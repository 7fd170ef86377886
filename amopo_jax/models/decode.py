"""The decoder with a cache of keys and values: a whole prompt in one pass, then one token of every sequence at a time.

All sequences of a batch end at the same slot, so that the next token of each goes into the same slot: shorter
prompts have padding in front. Slots count from the left of the batch, positions from the start of a prompt.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from amopo_jax.models.attention import Attention, attention
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.layers import Places
from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.rotary import rotation
from amopo_jax.models.transformer import bind
from amopo_jax.types import Params

_HIDDEN = float(jnp.finfo(jnp.float32).min)


class Cache(NamedTuple):
  """What later tokens look at, of all layers; slots that are not written yet are zero."""

  keys: Float[Array, "L B slots G Dh"]
  values: Float[Array, "L B slots G Dh"]


def prefill(
  params: Params,
  config: ModelConfig,
  tokens: Int[Array, "B P"],
  padding: Int[Array, " B"],
  *,
  room: int,
  compute_dtype: Any,
  attention_chunk: int,
  attend: Attention = attention,
  constrain: Constrain = identity,
) -> tuple[Float[Array, "B D"], Cache]:
  """Reads the prompts.

  Args:
    params: as `transformer.init_params` makes them.
    config: the decoder.
    tokens: prompts, padded in front with any token.
    padding: how many tokens of each row are padding; less than P.
    room: slots for tokens to come.
    compute_dtype: of the residual stream and of all matrix products, and of the cache.
    attention_chunk: queries that the reference attention takes at a time.
    attend: the attention, of `attention.choose_attention`; the default runs anywhere.
    constrain: as of `transformer.hidden_states`.

  Returns:
    What the output head reads for the first new token, and the cache.
  """
  model = bind(params, config)
  length = tokens.shape[1]
  slots = jnp.arange(length, dtype=jnp.int32)[None, :]
  positions = jnp.maximum(slots - padding[:, None], 0)
  # In the trie's words: everything descends from what is before it, and padding from nothing.
  subtree_end = jnp.where(slots < padding[:, None], 0, length)
  places = Places(rotation(config, positions), positions, subtree_end)
  block, stacked = nnx.split(model.layers)

  def layer(x: Array, of_layer: Any) -> tuple[Array, tuple[Array, Array]]:
    seen = []

    def keep(q: Array, k: Array, v: Array, ends: Array, **where: Any) -> Array:
      seen.append((k, v))
      return attend(q, k, v, ends, chunk=attention_chunk, **where)

    x = nnx.merge(block, of_layer)(x, places, keep)
    return constrain(x, "residual"), seen[0]

  x = constrain(model.embed(tokens).astype(compute_dtype), "embedded")
  x, (keys, values) = jax.lax.scan(layer, constrain(x, "residual"), stacked)
  grow = lambda kept: jnp.pad(kept, ((0, 0), (0, 0), (0, room), (0, 0), (0, 0)))
  return model.final_norm(x[:, -1]), Cache(grow(keys), grow(values))


def decode(
  params: Params,
  config: ModelConfig,
  tokens: Int[Array, " B"],
  slot: Int[Array, ""],
  padding: Int[Array, " B"],
  cache: Cache,
  *,
  compute_dtype: Any,
  constrain: Constrain = identity,
) -> tuple[Float[Array, "B D"], Cache]:
  """Reads one more token of every sequence.

  Args:
    params, config, padding, compute_dtype, constrain: as of `prefill`.
    tokens: the new tokens.
    slot: where they go: P for the first.
    cache: with the slots before it.

  Returns:
    What the output head reads for the next token, and the cache with these.
  """
  model = bind(params, config)
  positions = slot - padding[:, None]
  places = Places(rotation(config, positions), positions, positions)  # of one token there is nothing to descend from
  is_seen = _seen(cache.keys.shape[2], slot, padding, config.sliding_window)
  block, stacked = nnx.split(model.layers)

  def layer(carry: tuple[Array, Cache], of_layer: Any) -> tuple[tuple[Array, Cache], None]:
    x, kept = carry
    number, layer_params = of_layer
    written = []

    def look(q: Array, k: Array, v: Array, ends: Array, **where: Any) -> Array:
      del ends, where
      put = lambda all_layers, new: jax.lax.dynamic_update_slice(all_layers, new[None], (number, 0, slot, 0, 0))
      written.append(Cache(put(kept.keys, k), put(kept.values, v)))
      return _look_back(q, written[0].keys[number], written[0].values[number], is_seen)

    x = nnx.merge(block, layer_params)(x, places, look)
    return (constrain(x, "residual"), written[0]), None

  x = constrain(model.embed(tokens[:, None]).astype(compute_dtype), "embedded")
  numbers = jnp.arange(config.num_layers)
  (x, cache), _ = jax.lax.scan(layer, (constrain(x, "residual"), cache), (numbers, stacked))
  return model.final_norm(x[:, 0]), cache


def _seen(num_slots: int, slot: Array, padding: Array, window: int | None) -> Bool[Array, "B slots"]:
  """Which slots the tokens at `slot` look at: their sequence's, up to themselves, as far as the window goes."""
  slots = jnp.arange(num_slots)[None, :]
  is_seen = (slots <= slot) & (slots >= padding[:, None])
  return is_seen if window is None else is_seen & (slot - slots < window)


def _look_back(
  q: Float[Array, "B 1 H Dh"],
  keys: Float[Array, "B slots G Dh"],
  values: Float[Array, "B slots G Dh"],
  is_seen: Bool[Array, "B slots"],
) -> Float[Array, "B 1 H Dh"]:
  """Softmax attention of one query per sequence and head."""
  rows, _, heads, size = q.shape
  groups = keys.shape[2]
  by_group = q.reshape(rows, groups, heads // groups, size)
  scores = jnp.einsum("bghd,bsgd->bghs", by_group, keys, preferred_element_type=jnp.float32) * size**-0.5
  weights = jax.nn.softmax(jnp.where(is_seen[:, None, None, :], scores, _HIDDEN), axis=-1)
  found = jnp.einsum("bghs,bsgd->bghd", weights.astype(q.dtype), values, preferred_element_type=jnp.float32)
  return found.astype(q.dtype).reshape(q.shape)
