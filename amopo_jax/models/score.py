"""From token rows to the moments of the responses: the seam between the policy and the objective."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from amopo_jax.models.attention import Attention, attention
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.head import BLOCK_LOGITS, moments_head
from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.logps import Room
from amopo_jax.models.transformer import hidden_states, output_embedding
from amopo_jax.types import PAIR_MEMBERS, PackedRows, Params, ResponseMoments

ScoreFn = Callable[[Params, PackedRows, int], ResponseMoments]
"""`score_fn(params, rows, num_pairs)`; the number of pairs is static."""


def make_score_fn(
  config: ModelConfig,
  *,
  num_contexts: int,
  compute_dtype: Any,
  remat: str,
  attention_chunk: int,
  head_chunk: int,
  head_keep: float = 0.0,
  block_logits: int = BLOCK_LOGITS,
  unroll: int = 1,
  head_shards: int = 1,
  head_sharers: int = 1,
  vocab_shards: int = 1,
  room: Room | None = None,
  attend: Attention = attention,
  constrain: Constrain = identity,
) -> ScoreFn:
  """Builds the function that scores every response once, whatever the layout of its tokens.

  Args:
    config: the decoder.
    num_contexts: K.
    compute_dtype: of matrix products and activations; logits and moments are float32.
    remat: what a layer keeps for the backward pass, a name in `transformer.REMAT`.
    attention_chunk: queries that the reference attention takes at a time.
    head_chunk: scored tokens that the head projects at a time, per device.
    head_keep: GiB per device in which the head may keep logits for the backward pass.
    block_logits: most logits that the head computes at a time.
    unroll: layers in one turn of the loop over layers.
    head_shards: in how many equal parts the rows lie on different devices.
    head_sharers: devices that share the head's work on each of these parts.
    vocab_shards: in how many equal parts the vocabulary lies on different devices.
    room: of `head.make_room`, memory for the kept logits that outlives a step.
    attend: the attention; the default runs anywhere.
    constrain: hook for layouts; kinds "embedded" and "residual" [R S …], "head_shards" [shards sharers …], and
      "head_weight" [V D].

  Returns:
    `score_fn(params, rows, num_pairs) -> ResponseMoments`, pure, with reverse-mode gradients in `params`.
  """
  tiling = {"chunk": head_chunk, "keep": head_keep, "block_logits": block_logits}
  shares = {"shards": head_shards, "sharers": head_sharers, "vocab_shards": vocab_shards}
  head = partial(moments_head, room=room, constrain=constrain, **tiling, **shares)

  def score_fn(params: Params, rows: PackedRows, num_pairs: int) -> ResponseMoments:
    hidden = hidden_states(
      params,
      config,
      rows,
      compute_dtype=compute_dtype,
      remat=remat,
      attention_chunk=attention_chunk,
      unroll=unroll,
      attend=attend,
      constrain=constrain,
    )
    weight = constrain(output_embedding(params, config).astype(compute_dtype), "head_weight")
    shape = (num_pairs, num_contexts, len(PAIR_MEMBERS))
    return ResponseMoments(*(x.reshape(shape) for x in head(hidden, weight, rows, math.prod(shape))))

  return score_fn
