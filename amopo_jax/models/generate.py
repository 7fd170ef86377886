"""Whole responses from a policy: the prompt, then token after token until every sequence has ended."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from amopo_jax.models.attention import Attention, attention
from amopo_jax.models.cache import Cache, grow
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.decode import make_decode_fn, prefill
from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.sampling import Sampling, choose
from amopo_jax.models.transformer import output_embedding
from amopo_jax.types import Params

_LEAST_LENGTH = 64
"""Prompts are padded to this, or to the next 1.5 or 2 times a power of two of it: few shapes, few compilations."""

_LEAST_ROOM = 32
"""New tokens that a cache has room for at first, at least. It doubles when it is full: each token reads every slot."""


class Generated(NamedTuple):
  """Responses of a batch.

  Attributes:
    tokens: behind the end of a response: its last token again and again.
    length: tokens of each, with the one that ended it.
    has_ended: by a token that ends it, not for want of room.
    sum_logp: nats, of the tokens under the policy, at temperature 1.
  """

  tokens: Int[Array, "B N"]
  length: Int[Array, " B"]
  has_ended: Bool[Array, " B"]
  sum_logp: Float[Array, " B"]


GenerateFn = Callable[[Params, Int[Array, "B P"], Int[Array, " B"], Key[Array, " B"]], Generated]
"""`generate_fn(params, tokens, padding, keys)`; compiles once per shape of the tokens."""


class _State(NamedTuple):
  step: Int[Array, ""]
  last: Int[Array, " B"]
  cache: Cache
  out: Generated


def make_generate_fn(
  config: ModelConfig,
  *,
  max_new: int,
  end_tokens: Sequence[int],
  sampling: Sampling,
  compute_dtype: Any,
  attention_chunk: int,
  attend: Attention = attention,
  constrain: Constrain = identity,
  is_apart: bool = False,
) -> GenerateFn:
  """Builds the function that continues every prompt of a batch.

  Args:
    config: the decoder.
    max_new: N, most tokens of a response, ≥ 1.
    end_tokens: each of them ends a response.
    sampling: how tokens are chosen.
    compute_dtype: of matrix products and of the cache; logits are float32.
    attention_chunk: queries that the reference attention takes at a time.
    attend: the attention that reads the prompts.
    constrain: hook for layouts, as of `transformer.hidden_states`.
    is_apart: whether each device goes on for itself (`mesh.apart`), and nothing is split between them.

  Returns:
    `generate_fn(params, tokens, padding, keys)`: prompts padded in front, how much of each is padding, and one key
    per sequence. Pure; a response depends on its own prompt and key alone.
  """
  ends = jnp.asarray(list(end_tokens), jnp.int32)
  read = {"compute_dtype": compute_dtype, "constrain": constrain}

  def generate(params: Params, tokens: Array, padding: Array, keys: Array) -> Generated:
    rows, length = tokens.shape
    cache = prefill(params, config, tokens, padding, attention_chunk=attention_chunk, attend=attend, **read)
    decode_fn = make_decode_fn(params, config, padding, length + max_new, is_apart=is_apart, **read)
    empty = jnp.zeros(rows, jnp.int32)
    out = Generated(jnp.zeros((rows, max_new), jnp.int32), empty, empty > 0, jnp.zeros(rows, jnp.float32))
    choose_next = partial(_choose_next, ends, sampling, keys)

    def one_more(state: _State) -> _State:
      hidden, cache = decode_fn(state.last, length - 1 + state.step, state.cache)  # at first, the prompts' last tokens
      weight = output_embedding(params, config).astype(hidden.dtype)
      logits = jnp.einsum("bd,vd->bv", hidden, weight, preferred_element_type=jnp.float32)
      return choose_next(logits, state._replace(cache=cache))

    def fill(state: _State, room: int) -> _State:
      state = state._replace(cache=grow(state.cache, length + room))
      is_open = lambda state: (state.step < room) & ~jnp.all(state.out.has_ended)
      return jax.lax.while_loop(is_open, one_more, state)

    first = _State(jnp.zeros((), jnp.int32), tokens[:, -1], cache, out)
    return reduce(fill, _rooms(max_new), first).out

  return generate


def padded_length(longest: int) -> int:
  """To which prompts are padded of which the longest has so many tokens."""
  length = _LEAST_LENGTH
  while length < longest:
    length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
  return length


def _rooms(max_new: int) -> list[int]:
  """Tokens that the cache has room for, one time after the other: the last is `max_new`."""
  rooms = [max_new]
  while rooms[0] >= 2 * _LEAST_ROOM:
    rooms.insert(0, -(-rooms[0] // 2))
  return rooms


def _choose_next(ends: Array, sampling: Sampling, keys: Array, logits: Array, state: _State) -> _State:
  """Writes the next token of every sequence; one that has ended repeats its last."""
  out, step = state.out, state.step
  drawn = choose(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, step), sampling)
  new = jnp.where(out.has_ended, state.last, drawn)
  logp = jnp.take_along_axis(logits, new[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logits, axis=1)
  return state._replace(
    step=step + 1,
    last=new,
    out=Generated(
      tokens=jax.lax.dynamic_update_slice(out.tokens, new[:, None], (0, step)),
      length=out.length + ~out.has_ended,
      has_ended=out.has_ended | jnp.any(new[:, None] == ends[None, :], axis=1),
      sum_logp=out.sum_logp + jnp.where(out.has_ended, 0.0, logp),
    ),
  )
