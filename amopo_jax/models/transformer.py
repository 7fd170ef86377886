"""The decoder as pure functions of a nested dict of parameters; flax.nnx inside, no mesh anywhere.

The layers are one `Block` whose parameters are stacked along a leading axis L, and one `jax.lax.scan` over
it: the compile time does not grow with L, and a sharding rule names a parameter once.
"""

from collections.abc import Callable
from functools import cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import checkpoint_policies as policies
from jaxtyping import Array, Float

from amopo_jax.models.attention import ATTENTION_NAME, Attention, attention
from amopo_jax.models.config import ModelConfig
from amopo_jax.models.layers import Block, Places, QuantizedKernel, RMSNorm, Table
from amopo_jax.models.layout import Constrain, identity
from amopo_jax.models.rotary import rotation
from amopo_jax.types import InputError, PackedRows, Params

_keep_attention = policies.save_only_these_names(ATTENTION_NAME)
_keep_projections = policies.dots_with_no_batch_dims_saveable

LAYERS = "layers"
"""Scope of the loop over layers, by which compiled programs and profiles name it."""

REMAT: dict[str, Callable[[Callable], Callable]] = {
  "none": lambda layer: layer,
  "dots": partial(
    jax.checkpoint,
    policy=policies.save_from_both_policies(_keep_projections, _keep_attention),
    prevent_cse=False,
  ),
  "dots_no_batch": partial(jax.checkpoint, policy=_keep_projections, prevent_cse=False),
  "save_attention": partial(jax.checkpoint, policy=_keep_attention, prevent_cse=False),
  "full": partial(jax.checkpoint, policy=policies.nothing_saveable, prevent_cse=False),
}
"""What a layer keeps for its backward pass, from most memory and least work to the contrary.

`none`: everything. `dots`: the results of the projections and of the attention. `dots_no_batch`: those of the
projections. `save_attention`: its input and the result of the attention. `full`: its input. (CSE need not be
prevented: the forward and the backward pass are two loops.)
"""


class Transformer(nnx.Module):
  """Embedding, L blocks, a last norm and, in an untied model, a head."""

  def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs) -> None:
    self.embed = Table(config, dtype=dtype, rngs=rngs)
    self.layers = nnx.vmap(lambda layer_rngs: Block(config, dtype=dtype, rngs=layer_rngs))(
      rngs.split(config.num_layers)
    )
    self.final_norm = RMSNorm(config, config.width, dtype=dtype)
    if not config.tie_embeddings:
      self.lm_head = Table(config, dtype=dtype, rngs=rngs)
    self.config = config

  def __call__(
    self, rows: PackedRows, *, compute_dtype: Any, remat: str, unroll: int, attend: Attention, constrain: Constrain
  ) -> Float[Array, "R S D"]:
    turned = jax.tree.map(lambda angles: constrain(angles, "residual"), rotation(self.config, rows.positions))
    places = Places(turned, rows.positions, rows.subtree_end)
    block, stacked = nnx.split(self.layers)

    def layer(x: Array, params: Any) -> tuple[Array, None]:
      x = nnx.merge(block, params)(x, places, attend)
      return constrain(x, "residual"), None

    x = constrain(self.embed(rows.tokens).astype(compute_dtype), "embedded")
    x = constrain(x, "residual")
    with jax.named_scope(LAYERS):
      x, _ = jax.lax.scan(remat_policy(remat)(layer), x, stacked, unroll=unroll)
    return self.final_norm(x)


def remat_policy(name: str) -> Callable[[Callable], Callable]:
  """The entry of `REMAT`, or an InputError that lists what there is."""
  if name not in REMAT:
    raise InputError(f"model.remat: {name!r} is unknown; choose one of {', '.join(REMAT)}")
  return REMAT[name]


def init_params(config: ModelConfig, rng: Array, dtype: Any) -> Params:
  """Random parameters: normal with `initializer_range`, norms 1, biases 0.

  Args:
    config: the decoder.
    rng: key.
    dtype: of every parameter.

  Returns:
    Nested dict; kernels are [in, out], parameters of the layers have a leading axis L.
  """
  return nnx.to_pure_dict(nnx.state(Transformer(config, dtype=dtype, rngs=nnx.Rngs(rng)), nnx.Param))


def abstract_params(config: ModelConfig, dtype: Any) -> Params:
  """The tree of `init_params` as shapes and types, without computing anything."""
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0), dtype))


def hidden_states(
  params: Params,
  config: ModelConfig,
  rows: PackedRows,
  *,
  compute_dtype: Any,
  remat: str,
  attention_chunk: int,
  unroll: int = 1,
  attend: Attention = attention,
  constrain: Constrain = identity,
) -> Float[Array, "R S D"]:
  """What the output head reads: the residual stream after the last norm.

  Args:
    params: as `init_params` makes them, in any float type, or as `lora.join` does.
    config: the decoder.
    rows: tokens in trie order.
    compute_dtype: of the residual stream and of all matrix products; norms, rotation and softmax are float32.
    remat: name of a policy in `REMAT`.
    attention_chunk: queries that the reference attention takes at a time.
    unroll: layers in one turn of the loop over layers.
    attend: the attention, of `attention.choose_attention`; the default runs anywhere.
    constrain: called with every new residual stream, and the rotation of its tokens, and the kind "residual";
      before that with the embedded tokens and the kind "embedded".
  """
  return bind(params, config)(
    rows,
    compute_dtype=compute_dtype,
    remat=remat,
    unroll=unroll,
    attend=partial(attend, chunk=attention_chunk),
    constrain=constrain,
  )


def bind(params: Params, config: ModelConfig) -> Transformer:
  """The decoder as a module with these parameters, as `init_params` makes them or as `lora.join` does."""
  return nnx.merge(_structure(config, *_lora_parts(params)), params)


def output_embedding(params: Params, config: ModelConfig) -> Float[Array, "V D"]:
  """The matrix that turns hidden states into logits: the head's, or the embedding where they are tied."""
  return params["embed" if config.tie_embeddings else "lm_head"]["weight"]


def _lora_parts(params: Params) -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
  """Paths of the linear layers that have adapters, and of those whose kernel is quantized."""
  paths = [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params["layers"])]
  adapted = frozenset(path[:-1] for path in paths if path[-1] == "lora_a")
  return adapted, frozenset(path[:-2] for path in paths if path[-1] == "qvalue")


@cache
def _structure(
  config: ModelConfig, adapted: frozenset[tuple[str, ...]], quantized: frozenset[tuple[str, ...]]
) -> nnx.GraphDef:
  model = nnx.eval_shape(lambda: Transformer(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))

  def layer_at(path: tuple[str, ...]) -> Any:
    return reduce(getattr, path, model.layers)

  for path in adapted:
    layer_at(path).add_adapters()
  for path in quantized:
    layer_at(path).kernel = QuantizedKernel()
  return nnx.graphdef(model)
