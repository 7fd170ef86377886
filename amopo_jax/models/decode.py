"""The decoder with a cache of keys and values: a whole prompt in one pass, then one token of every sequence at a time.

All sequences of a batch end at the same slot, so that the next token of each goes into the same slot: shorter
prompts have padding in front. Slots count from the left of the batch, positions from the start of a prompt.
"""

from functools import partial
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

_MOST_STACKS = 8
"""A program in which every layer stands by itself grows with the layers, and so does the time to compile it."""


class Cache(NamedTuple):
  """What later tokens look at, by stacks of layers; slots that are not written yet are zero.

  A loop over the n layers of a stack copies each one's part out for every token, so few layers have a stack each.

  The axis over which attention sums, Dh of the keys and the slots of the values, is never the last one, so that the
  sums of neighbours in memory go side by side.
  """

  keys: tuple[Float[Array, "n B G Dh slots"], ...]
  values: tuple[Float[Array, "n B G slots Dh"], ...]

  @property
  def num_slots(self) -> int:
    """Written or not, of every layer."""
    return self.keys[0].shape[-1]


def prefill(
  params: Params,
  config: ModelConfig,
  tokens: Int[Array, "B P"],
  padding: Int[Array, " B"],
  *,
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
    compute_dtype: of the residual stream and of all matrix products, and of the cache.
    attention_chunk: queries that the reference attention takes at a time.
    attend: the attention, of `attention.choose_attention`; the default runs anywhere.
    constrain: as of `transformer.hidden_states`.

  Returns:
    What the output head reads for the first new token, and the cache, which is full: `grow` makes room.
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
  keys, values = jnp.moveaxis(keys, 2, 4), jnp.moveaxis(values, 2, 3)
  parts = _stacks(config.num_layers)
  return model.final_norm(x[:, -1]), Cache(tuple(keys[part] for part in parts), tuple(values[part] for part in parts))


def grow(cache: Cache, num_slots: int) -> Cache:
  """The cache with empty slots more, so that there are this many."""
  more, none = (0, num_slots - cache.num_slots), (0, 0)
  return Cache(
    tuple(jnp.pad(keys, (none, none, none, none, more)) for keys in cache.keys),
    tuple(jnp.pad(values, (none, none, none, more, none)) for values in cache.values),
  )


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
  is_seen = _seen(cache.num_slots, slot, padding, config.sliding_window)
  block, stacked = nnx.split(model.layers)

  def layer(x: Array, of_layer: tuple[Any, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    layer_params, keys, values = of_layer
    new = []

    def look(q: Array, k: Array, v: Array, ends: Array, **where: Any) -> Array:
      del ends, where
      found = _look_back(q[:, 0], k[:, 0], v[:, 0], keys, values, is_seen)
      new.append(_behind(found, k[:, 0], v[:, 0]))
      return found[:, None]

    x = nnx.merge(block, layer_params)(x, places, look)
    return constrain(x, "residual"), new[0]

  x = constrain(constrain(model.embed(tokens[:, None]).astype(compute_dtype), "embedded"), "residual")
  written = []
  for part, keys, values in zip(_stacks(config.num_layers), *cache, strict=True):
    of_part = jax.tree.map(lambda of_all, part=part: of_all[part], stacked)
    # The cache is read in the loop and written once, behind it: written in it, it would be copied with every layer.
    x, (k, v) = jax.lax.scan(layer, x, (of_part, keys, values))
    written.append(_write(keys, values, k, v, slot))
  return model.final_norm(x[:, 0]), Cache(*zip(*written, strict=True))


def _write(
  keys: Float[Array, "n B G Dh slots"],
  values: Float[Array, "n B G slots Dh"],
  k: Float[Array, "n B G Dh"],
  v: Float[Array, "n B G Dh"],
  slot: Int[Array, ""],
) -> tuple[Float[Array, "n B G Dh slots"], Float[Array, "n B G slots Dh"]]:
  """A stack's part of the cache with one token more of every sequence."""
  keys = jax.lax.dynamic_update_slice(keys, k[..., None], (0, 0, 0, 0, slot))
  return keys, jax.lax.dynamic_update_slice(values, v[..., None, :], (0, 0, 0, slot, 0))


def _stacks(num_layers: int) -> list[slice]:
  """The layers of each stack."""
  size = 1 if num_layers <= _MOST_STACKS else num_layers
  return [slice(start, start + size) for start in range(0, num_layers, size)]


def _seen(num_slots: int, slot: Array, padding: Array, window: int | None) -> Bool[Array, "B slots"]:
  """Which slots the tokens at `slot` look at besides themselves: their sequence's, as far as the window goes."""
  slots = jnp.arange(num_slots)[None, :]
  is_seen = (slots < slot) & (slots >= padding[:, None])
  return is_seen if window is None else is_seen & (slot - slots < window)


def _look_back(
  q: Float[Array, "B H Dh"],
  k: Float[Array, "B G Dh"],
  v: Float[Array, "B G Dh"],
  keys: Float[Array, "B G Dh slots"],
  values: Float[Array, "B G slots Dh"],
  is_seen: Bool[Array, "B slots"],
) -> Float[Array, "B H Dh"]:
  """Softmax attention of one query per sequence and head, to what is in the cache and to its own token."""
  by_group = q.reshape(*k.shape[:2], -1, q.shape[-1])
  product, scale = partial(jnp.einsum, preferred_element_type=jnp.float32), q.shape[-1] ** -0.5
  before = jnp.where(is_seen[:, None, None, :], scale * product("bghd,bgds->bghs", by_group, keys), _HIDDEN)
  own = scale * product("bghd,bgd->bgh", by_group, k)[..., None]
  largest = jnp.maximum(jnp.max(before, axis=-1, keepdims=True), own)
  weights, weight = jnp.exp(before - largest), jnp.exp(own - largest)
  found = product("bghs,bgsd->bghd", weights.astype(q.dtype), values) + weight * v[:, :, None].astype(jnp.float32)
  found = found / (jnp.sum(weights, axis=-1, keepdims=True) + weight)
  return found.astype(q.dtype).reshape(q.shape)


def _behind(
  found: Float[Array, "B H Dh"], k: Float[Array, "B G Dh"], v: Float[Array, "B G Dh"]
) -> tuple[Float[Array, "B G Dh"], Float[Array, "B G Dh"]]:
  """Key and value of the new tokens, which are made to depend on what was found in the cache.

  Else the compiler may write them before it reads, for which it copies the whole cache; a barrier does not hinder it.
  """
  nothing = 0 * found.reshape(*k.shape[:2], -1, k.shape[-1])[:, :, 0]
  return k + nothing, v + nothing
