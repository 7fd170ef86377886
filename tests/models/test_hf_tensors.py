"""Which tensors there are, in which order, and how they are cut into files; test_hf_export.py reads the bytes back."""

import numpy as np

from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_tensors import plan_tensors, split_tensors


def test_tensors_go_layer_by_layer_between_the_tables(hf_fields, hf_tensors):
  config = from_hf(hf_fields, "test")
  tensors = plan_tensors(config, 4)
  names = [tensor.name for tensor in tensors]
  assert set(names) == set(hf_tensors)
  assert names[0] == "model.embed_tokens.weight"
  layers = [int(name.split(".")[2]) for name in names if ".layers." in name]
  assert layers == sorted(layers)
  assert {tensor.name: tensor.num_bytes for tensor in tensors} == {
    name: value.size * 4 for name, value in hf_tensors.items()
  }


def test_files_hold_what_fits_and_a_larger_tensor_alone(hf_fields):
  tensors = plan_tensors(from_hf(hf_fields, "test"), 4)
  shards = list(split_tensors(tensors, 1000))
  assert [tensor for shard in shards for tensor in shard] == tensors
  for shard in shards:
    assert len(shard) == 1 or sum(tensor.num_bytes for tensor in shard) <= 1000
  assert max(map(len, shards)) > 1
  assert np.max([tensor.num_bytes for tensor in tensors]) > 1000
