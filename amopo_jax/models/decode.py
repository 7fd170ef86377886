"""The decoder with a cache of keys and values: a whole prompt in one pass, then one token of every sequence at a time.

All sequences of a batch end at the same slot, so that the next token of each goes into the same slot: shorter
prompts have padding in front. Slots count from the left of the batch, positions from the start of a prompt.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from amopo_jax.models.attention import Attention, attention
from amopo_jax.models.cache import Cache, behind, look_back, make_cache, seen_slots, write
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.layers import Places
from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.rotary import rotation
from amopo_jax.models.transformer import bind
from amopo_jax.types import Params

_MOST_STACKS = 8
"""A program in which every layer stands by itself grows with the layers, and so does the time to compile it."""

DecodeFn = Callable[[Int[Array, " B"], Int[Array, ""], Cache], tuple[Float[Array, "B D"], Cache]]
"""`decode_fn(tokens, slot, cache)`: reads one more token of every sequence, which goes into `slot`.

Returns what the output head reads for the next token, and the cache with these.
"""


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
) -> Cache:
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
    The cache, which is full: `grow` makes room. Whoever reads the last token of the prompts again, into its slot, gets
    what the first new token depends on.
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

  x = constrain(constrain(model.embed(tokens).astype(compute_dtype), "embedded"), "residual")
  read = []
  for of_stack in _stacks(stacked, config.num_layers):  # of a last stack of one layer nothing but k and v is computed
    x, of_layers = jax.lax.scan(layer, x, of_stack)
    read.append(of_layers)
  return make_cache(read)


def make_decode_fn(
  params: Params,
  config: ModelConfig,
  padding: Int[Array, " B"],
  num_slots: int,
  *,
  compute_dtype: Any,
  constrain: Constrain = identity,
  is_apart: bool = False,
) -> DecodeFn:
  """Builds the function that reads one more token of every sequence.

  What is the same for all tokens is computed here, and so not in a loop over tokens: the rotations of all positions,
  and of a stack for each layer the layer's parameters.

  Args:
    params, config, padding, compute_dtype, constrain: as of `prefill`.
    num_slots: before which all tokens are.
    is_apart: whether each device goes on for itself, and nothing is split between them.
  """
  model = bind(params, config)
  turns = rotation(config, jnp.arange(num_slots, dtype=jnp.int32)[None, :])
  block, stacked = nnx.split(model.layers)
  stacks = _stacks(stacked, config.num_layers)

  def decode(tokens: Array, slot: Array, cache: Cache) -> tuple[Array, Cache]:
    positions = slot - padding[:, None]
    mine = jax.tree.map(lambda of_all: of_all[0].at[positions].get(mode="promise_in_bounds"), turns)
    places = Places(mine, positions, positions)  # of one token there is nothing to descend from
    is_seen = seen_slots(cache.num_slots, slot, padding, config.sliding_window)
    look = partial(look_back, is_seen=is_seen, is_apart=is_apart)
    layer = partial(_one_layer, block, places, look, constrain)
    x = constrain(constrain(model.embed(tokens[:, None]).astype(compute_dtype), "embedded"), "residual")
    written = []
    for of_stack, keys, values in zip(stacks, *cache, strict=True):
      # The cache is read in the loop and written once, behind it: written in it, it would be copied with every layer.
      x, (k, v) = jax.lax.scan(layer, x, (of_stack, keys, values))
      written.append(write(keys, values, k, v, slot))
    return model.final_norm(x[:, 0]), Cache(*zip(*written, strict=True))

  return decode


def _one_layer(
  block: Any,
  places: Places,
  look: Callable[..., Array],
  constrain: Constrain,
  x: Array,
  of_layer: tuple[Any, Array, Array],
) -> tuple[Array, tuple[Array, Array]]:
  """The residual stream behind a layer, and the new tokens' key and value there."""
  layer_params, keys, values = of_layer
  new = []

  def attend(q: Array, k: Array, v: Array, ends: Array, **where: Any) -> Array:
    del ends, where
    found = look(q[:, 0], k[:, 0], v[:, 0], keys, values)
    new.append(behind(found, k[:, 0], v[:, 0]))
    return found[:, None]

  x = nnx.merge(block, layer_params)(x, places, attend)
  return constrain(x, "residual"), new[0]


def _stacks(stacked: Any, num_layers: int) -> list[Any]:
  """The parameters of all layers, stack by stack."""
  size = 1 if num_layers <= _MOST_STACKS else num_layers
  return [jax.tree.map(lambda of_all, at=at: of_all[at : at + size], stacked) for at in range(0, num_layers, size)]
