"""What the tokens behind a prompt look at: keys and values of all tokens before, and the attention to them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_HIDDEN = float(jnp.finfo(jnp.float32).min)

_NARROW = 16
"""Heads of fewer numbers than this do not fill a vector of a CPU."""

_MOST_MERGED = 64
"""Numbers of all key heads together for which one product of all is faster than one for each."""


class Cache(NamedTuple):
  """What later tokens look at, by stacks of layers; slots that are not written yet are zero.

  A loop over the n layers of a stack copies each one's part out for every token, so few layers have a stack each.

  The axis over which attention sums, Dh of the keys and the slots of the values, is not the last one, so that the
  sums of neighbours in memory go side by side; but the values of narrow heads lie as the keys do.
  """

  keys: tuple[Float[Array, "n B G Dh slots"], ...]
  values: tuple[Float[Array, "n B G slots Dh"] | Float[Array, "n B G Dh slots"], ...]

  @property
  def num_slots(self) -> int:
    """Written or not, of every layer."""
    return self.keys[0].shape[-1]


def make_cache(read: Sequence[tuple[Float[Array, "n B P G Dh"], Float[Array, "n B P G Dh"]]]) -> Cache:
  """The cache of prompts, from keys and values of all their tokens, stack by stack."""
  keys, values = zip(*read, strict=True)
  to = 4 if keys[0].shape[-1] < _NARROW else 3
  return Cache(tuple(jnp.moveaxis(k, 2, 4) for k in keys), tuple(jnp.moveaxis(v, 2, to) for v in values))


def grow(cache: Cache, num_slots: int) -> Cache:
  """The cache with empty slots more, so that there are this many."""
  more = num_slots - cache.num_slots

  def widened(x: Array, axis: int) -> Array:
    return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

  is_narrow = cache.keys[0].shape[3] < _NARROW
  values = tuple(widened(values, 4 if is_narrow else 3) for values in cache.values)
  return Cache(tuple(widened(keys, 4) for keys in cache.keys), values)


def write(
  keys: Float[Array, "n B G Dh slots"],
  values: Float[Array, "n B G one other"],
  k: Float[Array, "n B G Dh"],
  v: Float[Array, "n B G Dh"],
  slot: Int[Array, ""],
) -> tuple[Float[Array, "n B G Dh slots"], Float[Array, "n B G one other"]]:
  """A stack's part of the cache with one token more of every sequence."""
  at_end = lambda of_all, new: jax.lax.dynamic_update_slice(of_all, new[..., None], (0, 0, 0, 0, slot))
  if v.shape[-1] < _NARROW:
    return at_end(keys, k), at_end(values, v)
  return at_end(keys, k), jax.lax.dynamic_update_slice(values, v[..., None, :], (0, 0, 0, slot, 0))


def seen_slots(num_slots: int, slot: Array, padding: Array, window: int | None) -> Bool[Array, "B slots"]:
  """Which slots the tokens at `slot` look at besides themselves: their sequence's, as far as the window goes."""
  slots = jnp.arange(num_slots)[None, :]
  is_seen = (slots < slot) & (slots >= padding[:, None])
  return is_seen if window is None else is_seen & (slot - slots < window)


def look_back(
  q: Float[Array, "B H Dh"],
  k: Float[Array, "B G Dh"],
  v: Float[Array, "B G Dh"],
  keys: Float[Array, "B G Dh slots"],
  values: Float[Array, "B G one other"],
  is_seen: Bool[Array, "B slots"],
  *,
  is_apart: bool,
) -> Float[Array, "B H Dh"]:
  """Softmax attention of one query per sequence and head, to what is in the cache and to its own token.

  Where heads may be split over devices, `is_apart` is false: then no product mixes them.
  """
  by_group = q.reshape(*k.shape[:2], -1, q.shape[-1])
  product, scale = partial(jnp.einsum, preferred_element_type=jnp.float32), q.shape[-1] ** -0.5
  before = jnp.where(is_seen[:, None, None, :], scale * product("bghd,bgds->bghs", by_group, keys), _HIDDEN)
  own = scale * product("bghd,bgd->bgh", by_group, k)[..., None]
  largest = jnp.maximum(jnp.max(before, axis=-1, keepdims=True), own)
  weights, weight = jnp.exp(before - largest), jnp.exp(own - largest)
  found = _weighed(weights.astype(q.dtype), values, q.shape[-1], is_apart) + weight * v[:, :, None].astype(jnp.float32)
  found = found / (jnp.sum(weights, axis=-1, keepdims=True) + weight)
  return found.astype(q.dtype).reshape(q.shape)


def _weighed(
  weights: Float[Array, "B G M slots"], values: Float[Array, "B G one other"], size: int, is_apart: bool
) -> Float[Array, "B G M Dh"]:
  """The values' sums with these weights.

  Those of a few narrow heads are in one product of all groups' weights and values, and what belongs to two groups is
  thrown away: it costs little where a vector would be half empty. Between devices it would send all values.
  """
  product = partial(jnp.einsum, preferred_element_type=jnp.float32)
  if size >= _NARROW:
    return product("bghs,bgsd->bghd", weights, values)
  rows, groups, members, slots = weights.shape
  if not is_apart or groups * size > _MOST_MERGED:
    return product("bghs,bgds->bghd", weights, values)
  of_all = product("bxs,bys->byx", weights.reshape(rows, -1, slots), values.reshape(rows, -1, slots))
  return jnp.einsum("bgdgh->bghd", of_all.reshape(rows, groups, size, groups, members))


def behind(
  found: Float[Array, "B H Dh"], k: Float[Array, "B G Dh"], v: Float[Array, "B G Dh"]
) -> tuple[Float[Array, "B G Dh"], Float[Array, "B G Dh"]]:
  """Key and value of the new tokens, which are made to depend on what was found in the cache.

  Else the compiler may write them before it reads, for which it copies the whole cache; a barrier does not hinder it.
  """
  nothing = 0 * found.reshape(*k.shape[:2], -1, k.shape[-1])[:, :, 0]
  return k + nothing, v + nothing
