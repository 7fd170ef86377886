import dataclasses

import jax.numpy as jnp
import pytest
from jax.tree_util import tree_flatten_with_path

from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_names import HARMLESS_TENSORS, get_leaf, leaves, set_leaf
from amopo_jax.models.transformer import abstract_params


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"qkv_bias": False, "qk_norm": True, "head_dim": 6}])
def test_the_table_has_the_leaves_of_the_transformer(hf_fields, changes):
  config = dataclasses.replace(from_hf(hf_fields, "config.json"), **changes)
  flat, _ = tree_flatten_with_path(abstract_params(config, jnp.float32))
  expected = {tuple(key.key for key in path): leaf.shape for path, leaf in flat}
  assert {leaf.path: leaf.shape for leaf in leaves(config)} == expected


def test_the_names_and_shapes_are_those_of_the_checkpoint(hf_fields, hf_tensors):
  table = leaves(from_hf(hf_fields, "config.json"))
  found = {name: leaf.file_shape for leaf in table for name in leaf.names}
  assert found == {name: tensor.shape for name, tensor in hf_tensors.items()}


def test_a_leaf_is_found_where_it_was_put():
  tree: dict = {}
  set_leaf(tree, ("layers", "attn", "q"), 1)
  set_leaf(tree, ("layers", "mlp"), 2)
  assert tree == {"layers": {"attn": {"q": 1}, "mlp": 2}}
  assert get_leaf(tree, ("layers", "attn", "q")) == 1


@pytest.mark.parametrize(
  "name, is_harmless",
  [
    ("model.layers.11.self_attn.rotary_emb.inv_freq", True),
    ("model.rotary_emb.inv_freq", True),
    ("model.layers.0.self_attn.o_proj.bias", False),
  ],
)
def test_only_computed_buffers_are_harmless(name, is_harmless):
  assert (HARMLESS_TENSORS.fullmatch(name) is not None) == is_harmless
