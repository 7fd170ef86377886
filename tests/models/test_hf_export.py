import json
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import safe_open
from safetensors.numpy import load, load_file

from amopo_jax.models import hf_tensors
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_export import Crew, save_model
from amopo_jax.models.hf_import import load_config, load_params
from amopo_jax.models.hf_names import leaves, set_leaf
from amopo_jax.types import InputError


@pytest.fixture
def model(write_model, hf_fields, hf_tensors):
  """Parameters, their config, and the content of its file."""
  directory = write_model(hf_fields, hf_tensors)
  config, fields = load_config(directory)
  return load_params(directory, config, dtype=jnp.float32), config, fields


def files_in(directory):
  return sorted(path.name for path in directory.iterdir())


def test_export_of_import_is_the_same_file(model, hf_tensors, tmp_path):
  save_model(*model, tmp_path / "out", dtype=jnp.float32)
  assert files_in(tmp_path / "out") == ["config.json", "model.safetensors"]
  written = load_file(tmp_path / "out" / "model.safetensors")
  assert written.keys() == hf_tensors.keys()
  with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
    assert file.metadata() == {"format": "pt"}  # transformers 4 refuses a file without
  for name, tensor in hf_tensors.items():
    np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_import_of_export_is_the_same_tree(model, tmp_path):
  params, config, _ = model
  save_model(*model, tmp_path / "out", dtype=jnp.float32, max_shard_bytes=3000)
  assert load_config(tmp_path / "out")[0] == config
  again = load_params(tmp_path / "out", config, dtype=jnp.float32)
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_crew_writes_what_one_alone_would(model, tmp_path):
  save_model(*model, tmp_path / "alone", dtype=jnp.float32, max_shard_bytes=3000)
  barrier = threading.Barrier(2)
  crew = [Crew(index, 2, lambda: barrier.wait(60) and None) for index in range(2)]
  save = lambda one: save_model(*model, tmp_path / "crew", dtype=jnp.float32, max_shard_bytes=3000, crew=one)
  with ThreadPoolExecutor(2) as pool:
    list(pool.map(save, crew))
  assert files_in(tmp_path / "crew") == files_in(tmp_path / "alone")
  for name in files_in(tmp_path / "alone"):
    assert (tmp_path / "crew" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize("spec", [P(), P("layers"), P(None, "rows"), P("layers", "rows")], ids=str)
@pytest.mark.parametrize("layer_of", [hf_tensors._layer_of, hf_tensors._cut_layer], ids=["cpu", "accelerator"])
def test_layers_and_rows_may_lie_on_other_devices(model, tmp_path, monkeypatch, layer_of, spec):
  params, config, fields = model
  save_model(*model, tmp_path / "whole", dtype=jnp.bfloat16)
  mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("layers", "rows"))
  place = lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P(*spec[: leaf.ndim])))
  split = dict(params, layers=jax.tree.map(place, params["layers"]))
  monkeypatch.setattr(hf_tensors, "_layer_of", layer_of)
  save_model(split, config, fields, tmp_path / "split", dtype=jnp.bfloat16)
  written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "split")]
  assert written[0] == written[1]


def test_several_files_have_an_index_and_keep_the_limit(model, hf_tensors, tmp_path):
  save_model(*model, tmp_path / "out", dtype=jnp.float32, max_shard_bytes=3000)
  index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
  assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in hf_tensors.values())
  assert index["weight_map"].keys() == hf_tensors.keys()
  shards = sorted(set(index["weight_map"].values()))
  assert files_in(tmp_path / "out") == ["config.json", *shards, "model.safetensors.index.json"]
  assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
  for shard in shards:
    tensors = load_file(tmp_path / "out" / shard)
    assert {name for name, file in index["weight_map"].items() if file == shard} == tensors.keys()
    assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 3000


def test_sharded_parameters_are_gathered(model, hf_tensors, tmp_path):
  params, config, fields = model
  mesh = Mesh(np.array(jax.devices()[:4]), ("fsdp",))
  cut = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(None, "fsdp") if x.ndim > 2 else P())), params)
  save_model(cut, config, fields, tmp_path / "out", dtype=jnp.float32)
  written = load_file(tmp_path / "out" / "model.safetensors")
  name = "model.layers.1.mlp.down_proj.weight"
  np.testing.assert_array_equal(written[name], hf_tensors[name])


def test_numpy_parameters_are_written_too(model, hf_tensors, tmp_path):
  params, config, fields = model
  save_model(jax.tree.map(np.asarray, params), config, fields, tmp_path / "out", dtype=jnp.float32)
  written = load_file(tmp_path / "out" / "model.safetensors")
  np.testing.assert_array_equal(written["lm_head.weight"], hf_tensors["lm_head.weight"])


def test_bfloat16_rounds_and_says_so(model, hf_tensors, tmp_path):
  save_model(*model, tmp_path / "out", dtype=jnp.bfloat16)
  written = load_file(tmp_path / "out" / "model.safetensors")
  name = "model.layers.0.self_attn.q_proj.weight"
  np.testing.assert_array_equal(written[name], hf_tensors[name].astype(jnp.bfloat16))
  assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_config_is_kept_except_for_the_type(model, hf_fields, tmp_path):
  params, config, fields = model
  fields = {key: value for key, value in fields.items() if key != "torch_dtype"} | {"dtype": "bfloat16"}
  save_model(params, config, fields, tmp_path / "out", dtype=jnp.float32)
  assert json.loads((tmp_path / "out" / "config.json").read_text()) == hf_fields


def test_a_tied_model_has_no_head_in_the_file(write_model, hf_fields, hf_tensors, tmp_path):
  del hf_tensors["lm_head.weight"]
  directory = write_model(hf_fields | {"tie_word_embeddings": True}, hf_tensors)
  config, fields = load_config(directory)
  params = load_params(directory, config, dtype=jnp.float32)
  save_model(params, config, fields, tmp_path / "out", dtype=jnp.float32)
  assert load_file(tmp_path / "out" / "model.safetensors").keys() == hf_tensors.keys()


def test_a_directory_that_is_not_empty_is_left_alone(model, tmp_path):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match="out: exists and is not an empty directory; choose another") as caught:
    save_model(*model, tmp_path / "out", dtype=jnp.float32)
  assert "\n" not in str(caught.value)
  assert files_in(tmp_path / "out") == ["notes.txt"]


def test_a_file_is_left_alone(model, tmp_path):
  (tmp_path / "out").write_text("mine")
  with pytest.raises(InputError, match="not an empty directory"):
    save_model(*model, tmp_path / "out", dtype=jnp.float32)
  assert (tmp_path / "out").read_text() == "mine"


def test_an_object_store_gets_the_description_last(model, hf_tensors, bucket):
  save_model(*model, "gs://bucket/out", dtype=jnp.float32, max_shard_bytes=1000)
  names = [name.rpartition("/")[2] for name in bucket.written]
  assert names[-1] == "config.json"
  index = json.loads(bucket.cat_file("bucket/out/model.safetensors.index.json"))
  for name, file in index["weight_map"].items():
    np.testing.assert_array_equal(load(bucket.cat_file(f"bucket/out/{file}"))[name], hf_tensors[name])


def test_an_object_store_s_directory_in_use_is_refused(model, bucket):
  bucket.pipe_file("bucket/out/notes.txt", b"mine")
  with pytest.raises(InputError, match="gs://bucket/out: exists and is not an empty directory"):
    save_model(*model, "gs://bucket/out", dtype=jnp.float32)


def test_what_a_killed_export_left_in_an_object_store_is_written_anew(model, bucket):
  for name in ("model-00001-of-00009.safetensors", "tokenizer.json"):
    bucket.pipe_file(f"bucket/out/{name}", b"half")
  save_model(*model, "gs://bucket/out", dtype=jnp.float32, max_shard_bytes=1000)
  names = {path.rpartition("/")[2] for path in bucket.ls("bucket/out", detail=False)}
  assert "config.json" in names
  assert not names & {"model-00001-of-00009.safetensors", "tokenizer.json"}
  with pytest.raises(InputError, match="exists and is not an empty directory"):
    save_model(*model, "gs://bucket/out", dtype=jnp.float32)


def test_an_empty_directory_is_filled(model, tmp_path):
  (tmp_path / "out").mkdir()
  save_model(*model, tmp_path / "out", dtype=jnp.float32)
  assert files_in(tmp_path / "out") == ["config.json", "model.safetensors"]


def test_parents_are_made(model, tmp_path):
  save_model(*model, str(tmp_path / "a" / "b"), dtype=jnp.float32)
  assert files_in(tmp_path / "a") == ["b"]


def test_added_files_arrive_with_the_rest(model, tmp_path):
  out = tmp_path / "out"

  def add_tokenizer(directory):
    assert not out.exists()
    (directory / "tokenizer.json").write_text("{}")

  save_model(*model, out, dtype=jnp.float32, add_files=add_tokenizer)
  assert files_in(out) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_full_disk_is_one_line_and_leaves_nothing(model, tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\); free the space"):
    save_model(*model, tmp_path / "out", dtype=jnp.float32)
  assert files_in(tmp_path) == ["model"]


def test_what_breaks_off_leaves_nothing(model, tmp_path):
  def interrupted(directory):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    save_model(*model, tmp_path / "out", dtype=jnp.float32, add_files=interrupted)
  assert files_in(tmp_path) == ["model"]


def test_a_type_that_is_not_written_is_refused(model, tmp_path):
  with pytest.raises(InputError, match="int8; choose one of float32, bfloat16, float16"):
    save_model(*model, tmp_path / "out", dtype=jnp.int8)


def test_parameters_of_another_model_are_refused(model, tmp_path):
  params, config, fields = model
  with pytest.raises(ValueError, match="hf_config describes another model"):
    save_model(params, config, fields | {"rope_theta": 1e6}, tmp_path / "out", dtype=jnp.float32)
  other = {key: value for key, value in params.items() if key != "lm_head"}
  with pytest.raises(ValueError, match="not those of the model: lm_head/weight"):
    save_model(other, config, fields, tmp_path / "out", dtype=jnp.float32)


def test_tensors_stream_two_at_a_time(hf_fields, tmp_path):
  fields = hf_fields | {"num_hidden_layers": 8, "max_window_layers": 8, "intermediate_size": 4096}
  config = from_hf(fields, "config.json")
  params: dict = {}
  for leaf in leaves(config):
    set_leaf(params, leaf.path, jnp.ones(leaf.shape, jnp.float32))
  save_model(params, config, fields, tmp_path / "warm", dtype=jnp.bfloat16)  # compiles
  tracemalloc.start()
  save_model(params, config, fields, tmp_path / "out", dtype=jnp.bfloat16)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  largest = 16 * 4096 * 2
  # One that is written, one that is fetched, and what devices had to cut out for it; of 24 such tensors in one file.
  assert largest < peak < 6 * largest
