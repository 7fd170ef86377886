"""Where each parameter lies in a Hugging Face checkpoint.

    embed/weight                   model.embed_tokens.weight                   as it is
    layers/attn/q/kernel[l]        model.layers.{l}.self_attn.q_proj.weight    [in, out] here, [out, in] there
    layers/attn/q_norm/scale[l]    model.layers.{l}.self_attn.q_norm.weight    as it is
    lm_head/weight                 lm_head.weight                              as it is, if not tied

This table is all that import, export and the checks know of the two worlds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amopo_jax.models.config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

HARMLESS_TENSORS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""Tensors of old checkpoints that are computed from the config."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
  """One leaf of the parameter tree.

  Attributes:
    path: keys from the root of the tree.
    shape: shape of the leaf; the leaves under `layers` have the layers in front.
    names: tensors in the file that make up the leaf, one per layer under `layers`, else one.
    is_transposed: the last two axes are exchanged in the file.
  """

  path: tuple[str, ...]
  shape: tuple[int, ...]
  names: tuple[str, ...]
  is_transposed: bool = False

  @property
  def is_stacked(self) -> bool:
    """The first axis counts layers, each of which is a tensor of its own in the file."""
    return self.path[0] == "layers"

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape of each of the tensors in the file."""
    shape = self.shape[1:] if self.is_stacked else self.shape
    return shape[::-1] if self.is_transposed else shape


def leaves(config: ModelConfig) -> tuple[Leaf, ...]:
  """All leaves of the parameter tree of a model, in the order of the computation."""
  vocabulary = (config.vocab_size, config.width)
  head = [Leaf(path=("lm_head", "weight"), shape=vocabulary, names=(HEAD,))]
  return (
    Leaf(path=("embed", "weight"), shape=vocabulary, names=(EMBEDDING,)),
    *_layer_leaves(config),
    Leaf(path=("final_norm", "scale"), shape=(config.width,), names=("model.norm.weight",)),
    *([] if config.tie_embeddings else head),
  )


def get_leaf(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
  """The value at a path of a nested dict."""
  for key in path:
    tree = tree[key]
  return tree


def set_leaf(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  """Puts a value at a path of a nested dict, growing the dict as needed."""
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value


def _layer_leaves(config: ModelConfig) -> Iterator[Leaf]:
  """The stacked leaves, in the order of a layer's computation."""
  width, mlp_width, head_dim = config.width, config.mlp_width, config.head_dim
  q_width, kv_width = config.num_heads * head_dim, config.num_kv_heads * head_dim

  def leaf(path: str, shape: tuple[int, ...], name: str) -> Leaf:
    names = tuple(f"model.layers.{layer}.{name}" for layer in range(config.num_layers))
    shape = (config.num_layers, *shape)
    return Leaf(path=("layers", *path.split("/")), shape=shape, names=names, is_transposed=path.endswith("kernel"))

  yield leaf("attn_norm/scale", (width,), "input_layernorm.weight")
  for key, out in (("q", q_width), ("k", kv_width), ("v", kv_width)):
    yield leaf(f"attn/{key}/kernel", (width, out), f"self_attn.{key}_proj.weight")
    if config.qkv_bias:
      yield leaf(f"attn/{key}/bias", (out,), f"self_attn.{key}_proj.bias")
  if config.qk_norm:
    yield leaf("attn/q_norm/scale", (head_dim,), "self_attn.q_norm.weight")
    yield leaf("attn/k_norm/scale", (head_dim,), "self_attn.k_norm.weight")
  yield leaf("attn/o/kernel", (q_width, width), "self_attn.o_proj.weight")
  yield leaf("mlp_norm/scale", (width,), "post_attention_layernorm.weight")
  for key, shape in (("gate", (width, mlp_width)), ("up", (width, mlp_width)), ("down", (mlp_width, width))):
    yield leaf(f"mlp/{key}/kernel", shape, f"mlp.{key}_proj.weight")
