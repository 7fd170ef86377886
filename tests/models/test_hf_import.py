import json
import re
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from amopo_jax.models import hf_import, hf_place
from amopo_jax.models.hf_config import from_hf
from amopo_jax.models.hf_import import check_model_dir, load_config, load_params
from amopo_jax.models.hf_names import get_leaf, set_leaf
from amopo_jax.models.lora import kernel_leaves
from amopo_jax.models.quantized import quantize
from amopo_jax.models.transformer import abstract_params
from amopo_jax.types import InputError


def load(directory, *, dtype=jnp.float32, shardings=None):
  return load_params(directory, load_config(directory)[0], dtype=dtype, shardings=shardings)


def shardings_for(mesh, config):
  """Every kind of part: cut along both axes, along the layers, the same on two devices, or on all of them."""

  def rule(leaf):
    spec = {1: P("fsdp"), 2: P("tensor", "fsdp"), 3: P(None, "fsdp", "tensor")}[leaf.ndim]
    cuts = [mesh.shape[axis] if axis else 1 for axis in spec] + [1] * (leaf.ndim - len(spec))
    fits = all(size % cut == 0 for size, cut in zip(leaf.shape, cuts, strict=True))
    return NamedSharding(mesh, spec if fits else P())

  return jax.tree.map(rule, abstract_params(config, jnp.float32))


@pytest.fixture
def mesh():
  return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("fsdp", "tensor"))


@pytest.mark.parametrize("num_files", [1, 3])
def test_every_tensor_arrives_at_its_leaf(write_model, hf_fields, hf_tensors, num_files):
  params = load(write_model(hf_fields, hf_tensors, num_files=num_files))
  layers, file = params["layers"], hf_tensors
  np.testing.assert_array_equal(params["embed"]["weight"], file["model.embed_tokens.weight"])
  np.testing.assert_array_equal(params["lm_head"]["weight"], file["lm_head.weight"])
  np.testing.assert_array_equal(params["final_norm"]["scale"], file["model.norm.weight"])
  for i in range(2):
    prefix = f"model.layers.{i}."
    for key in ("q", "k", "v"):
      attn = layers["attn"][key]
      np.testing.assert_array_equal(attn["kernel"][i], file[f"{prefix}self_attn.{key}_proj.weight"].T)
      np.testing.assert_array_equal(attn["bias"][i], file[f"{prefix}self_attn.{key}_proj.bias"])
    np.testing.assert_array_equal(layers["attn"]["o"]["kernel"][i], file[f"{prefix}self_attn.o_proj.weight"].T)
    for key in ("gate", "up", "down"):
      np.testing.assert_array_equal(layers["mlp"][key]["kernel"][i], file[f"{prefix}mlp.{key}_proj.weight"].T)
    np.testing.assert_array_equal(layers["attn_norm"]["scale"][i], file[f"{prefix}input_layernorm.weight"])
    np.testing.assert_array_equal(layers["mlp_norm"]["scale"][i], file[f"{prefix}post_attention_layernorm.weight"])


def test_the_tree_is_that_of_the_transformer(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors)
  expected = abstract_params(from_hf(hf_fields, "config.json"), jnp.bfloat16)
  found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), load(directory, dtype=jnp.bfloat16))
  assert found == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), expected)


def test_bfloat16_files_lose_nothing(write_model, hf_fields, hf_tensors):
  half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in hf_tensors.items()}
  directory = write_model(hf_fields, half)
  wide, narrow = load(directory, dtype=jnp.float32), load(directory, dtype=jnp.bfloat16)
  expected = half["model.layers.1.mlp.down_proj.weight"].T
  assert narrow["layers"]["mlp"]["down"]["kernel"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.asarray(narrow["layers"]["mlp"]["down"]["kernel"][1]), expected)
  np.testing.assert_array_equal(wide["layers"]["mlp"]["down"]["kernel"][1], expected.astype(np.float32))


def test_sharded_equals_unsharded(write_model, hf_fields, hf_tensors, mesh):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  shardings = shardings_for(mesh, from_hf(hf_fields, "config.json"))
  sharded, whole = load(directory, shardings=shardings), load(directory)
  jax.tree.map(np.testing.assert_array_equal, sharded, whole)
  assert jax.tree.map(lambda x: x.sharding, sharded) == shardings
  gate = sharded["layers"]["mlp"]["gate"]["kernel"]
  assert {shard.data.shape for shard in gate.addressable_shards} == {(2, 4, 12)}


@pytest.mark.parametrize("held, most", [(0, 1), (1 << 30, 8)])
def test_each_part_is_read_once_and_no_more_are_held_than_may_be(
  write_model, hf_fields, hf_tensors, mesh, monkeypatch, held, most
):
  sizes, numbers = [], []
  read_parts = hf_place.read_parts

  def spy(*args):
    parts = read_parts(*args)
    numbers.append(len(parts))
    sizes.extend(part.size for part in parts)
    return parts

  monkeypatch.setattr(hf_place, "read_parts", spy)
  monkeypatch.setattr(hf_place, "_HELD_BYTES", held)
  config = from_hf(hf_fields, "config.json")
  load(write_model(hf_fields, hf_tensors), shardings=shardings_for(mesh, config))
  assert sum(sizes) == sum(tensor.size for tensor in hf_tensors.values())
  assert max(sizes) <= 2 * 24 * 16 / 8  # an eighth of two layers of the MLP
  assert max(numbers) == most


def test_several_processes_read_rows_of_the_files_and_exchange_them(
  write_model, hf_fields, hf_tensors, mesh, monkeypatch
):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  shardings = shardings_for(mesh, from_hf(hf_fields, "config.json"))
  whole, asked = load(directory), []
  read_parts = hf_place.read_parts
  monkeypatch.setattr(
    hf_place, "read_parts", lambda leaf, *rest: (asked.append((leaf, list(rest[-1]))), read_parts(leaf, *rest))[1]
  )
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  sharded = load(directory, shardings=shardings)
  jax.tree.map(np.testing.assert_array_equal, sharded, whole)
  assert jax.tree.map(lambda x: x.sharding, sharded) == shardings
  gates = [parts for leaf, parts in asked if leaf.path[-2:] == ("gate", "kernel")]
  assert [bounds for parts in gates for bounds in parts] == [((0, 2), (0, 16), (3 * n, 3 * n + 3)) for n in range(8)]


def test_host_memory_stays_near_one_part(write_model, hf_fields, hf_tensors, mesh, monkeypatch):
  rows = 131072
  table = np.ones((rows, 16), np.float32)
  big = hf_tensors | {"model.embed_tokens.weight": table, "lm_head.weight": table}
  directory = write_model(hf_fields | {"vocab_size": rows}, big)
  shardings = shardings_for(mesh, load_config(directory)[0])
  device_put = jax.device_put

  def put_a_copy(part, place):
    """CPU devices share memory with an aligned host array, which would then count as host memory."""
    odd = np.empty(part.nbytes + 68, np.uint8)
    start = 4 - odd.ctypes.data % 64 + 64
    unaligned = odd[start % 64 : start % 64 + part.nbytes].view(part.dtype).reshape(part.shape)
    unaligned[...] = part
    return device_put(unaligned, place)

  monkeypatch.setattr(jax, "device_put", put_a_copy)
  monkeypatch.setattr(hf_place, "_HELD_BYTES", 0)
  load(directory, shardings=shardings)  # imports and caches
  tracemalloc.start()
  load(directory, shardings=shardings)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  part = table.nbytes / 8
  # The slice as the file has it and as the device wants it, or the latter and our copy; and jax may hold on to the
  # last copy for a moment. The eight parts of the table at once would be 8.
  assert part < peak < 5 * part


def test_a_tied_file_may_repeat_the_table(write_model, hf_fields, hf_tensors):
  table = hf_tensors["model.embed_tokens.weight"]
  directory = write_model(hf_fields | {"tie_word_embeddings": True}, hf_tensors | {"lm_head.weight": table})
  params = load(directory)
  assert check_model_dir(directory).tie_embeddings
  assert "lm_head" not in params
  np.testing.assert_array_equal(params["embed"]["weight"], table)


def test_a_tied_file_may_leave_it_out(write_model, hf_fields, hf_tensors):
  del hf_tensors["lm_head.weight"]
  assert "lm_head" not in load(write_model(hf_fields | {"tie_word_embeddings": True}, hf_tensors))


def test_a_tied_file_with_another_head_is_refused(write_model, hf_fields, hf_tensors, monkeypatch):
  monkeypatch.setattr(hf_import, "_COMPARED_ROWS", 16)  # 40 rows: the difference is in the last, shorter part
  table = hf_tensors["model.embed_tokens.weight"].copy()
  table[39, 15] += 1e-3
  directory = write_model(hf_fields | {"tie_word_embeddings": True}, hf_tensors | {"lm_head.weight": table})
  with pytest.raises(InputError, match=r"lm_head.weight differs from model.embed_tokens.weight, .*ties them"):
    load(directory)


def refusal(read, directory):
  """The one line, with a remedy, by which a directory is refused."""
  with pytest.raises(InputError) as caught:
    read(directory)
  line = str(caught.value)
  assert "\n" not in line
  assert "; " in line
  return line


@pytest.mark.parametrize("read", [check_model_dir, load])
class TestRefusals:
  """What is wrong with the tensors is one line with file, tensor, found and expected, and a remedy."""

  def test_untied_without_head(self, read, write_model, hf_fields, hf_tensors):
    del hf_tensors["lm_head.weight"]
    assert re.search(
      "model: tensor lm_head.weight missing; .*config.json", refusal(read, write_model(hf_fields, hf_tensors))
    )

  def test_several_missing(self, read, write_model, hf_fields, hf_tensors):
    fewer = {name: tensor for name, tensor in hf_tensors.items() if "layers.1." not in name}
    assert re.search(
      r"tensor model.layers.1.input_layernorm.weight \(and 11 more\) missing",
      refusal(read, write_model(hf_fields, fewer)),
    )

  def test_wrong_shape(self, read, write_model, hf_fields, hf_tensors):
    hf_tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((24, 15), np.float32)
    assert re.search(
      r"of-00003.safetensors: tensor model.layers.1.mlp.up_proj.weight has shape \[24, 15\], .*\[24, 16\]",
      refusal(read, write_model(hf_fields, hf_tensors, num_files=3)),
    )

  def test_vocabulary_of_another_size(self, read, write_model, hf_fields, hf_tensors):
    assert re.search(
      r"\[40, 16\], .*\[41, 16\]", refusal(read, write_model(hf_fields | {"vocab_size": 41}, hf_tensors))
    )

  def test_tied_head_of_another_shape(self, read, write_model, hf_fields, hf_tensors):
    hf_tensors["lm_head.weight"] = np.zeros((41, 16), np.float32)
    directory = write_model(hf_fields | {"tie_word_embeddings": True}, hf_tensors)
    assert re.search(r"lm_head.weight has shape \[41, 16\]", refusal(read, directory))

  def test_extra_tensors(self, read, write_model, hf_fields, hf_tensors):
    hf_tensors["model.layers.0.self_attn.o_proj.bias"] = np.zeros(16, np.float32)
    assert re.search(
      "tensor model.layers.0.self_attn.o_proj.bias unknown to Qwen2", refusal(read, write_model(hf_fields, hf_tensors))
    )

  def test_more_layers_than_the_config_has(self, read, write_model, hf_fields, hf_tensors):
    directory = write_model(hf_fields | {"num_hidden_layers": 1}, hf_tensors)
    assert re.search(r"tensor model.layers.1.*\(and 11 more\) unknown", refusal(read, directory))

  def test_quantised(self, read, write_model, hf_fields, hf_tensors):
    hf_tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((24, 16), np.int8)
    assert re.search(
      "up_proj.weight has type I8; only F64, F32, F16, BF16", refusal(read, write_model(hf_fields, hf_tensors))
    )

  def test_missing_shard(self, read, write_model, hf_fields, hf_tensors):
    directory = write_model(hf_fields, hf_tensors, num_files=3)
    (directory / "model-00002-of-00003.safetensors").unlink()
    assert re.search("model-00002-of-00003.safetensors: missing", refusal(read, directory))

  def test_truncated_shard(self, read, write_model, hf_fields, hf_tensors):
    directory = write_model(hf_fields, hf_tensors)
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert re.search("model.safetensors: truncated or corrupt", refusal(read, directory))

  def test_without_config(self, read, tmp_path):
    assert re.search("config.json: missing; this directory holds no model", refusal(read, tmp_path))

  def test_unknown_architecture(self, read, write_model, hf_fields, hf_tensors):
    directory = write_model(hf_fields | {"architectures": ["GemmaForCausalLM"]}, hf_tensors)
    assert re.search(r"config.json: architectures is \['GemmaForCausalLM'\]; supported", refusal(read, directory))


def test_computed_buffers_of_old_files_are_let_pass(write_model, hf_fields, hf_tensors):
  hf_tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
  assert check_model_dir(write_model(hf_fields, hf_tensors)).num_layers == 2


def test_the_check_reads_no_parameters(write_model, hf_fields, hf_tensors, monkeypatch):
  monkeypatch.setattr(hf_place, "read_parts", None)
  assert check_model_dir(write_model(hf_fields, hf_tensors)) == from_hf(hf_fields, "config.json")


def test_the_content_of_the_config_is_returned_for_the_export(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors)
  config, content = load_config(str(directory))
  assert content == json.loads((directory / "config.json").read_text())
  assert config.width == 16


@pytest.mark.parametrize("kernel_type", ["int8", "nf4"])
def test_kernels_are_quantized_on_the_way_one_layer_at_a_time(
  write_model, hf_fields, hf_tensors, mesh, monkeypatch, kernel_type
):
  directory = write_model(hf_fields, hf_tensors)
  config = load_config(directory)[0]
  shardings = shardings_for(mesh, config)
  read = []
  real = hf_place.read_parts
  spy = lambda leaf, *rest: (read.extend((leaf, bounds) for bounds in rest[-1]), real(leaf, *rest))[1]
  monkeypatch.setattr(hf_place, "read_parts", spy)
  for leaf in kernel_leaves(config):
    whole = NamedSharding(mesh, P(None, None, "fsdp"))
    set_leaf(shardings, leaf.path, {"qvalue": whole, "scale": whole})
  params = load_params(directory, config, dtype=jnp.float32, shardings=shardings, kernel_type=kernel_type)
  assert all(end - start == 1 for leaf, ((start, end), *_) in read if leaf.path[-1] == "kernel")
  plain = load(directory)
  for leaf in kernel_leaves(config):
    found, expected = get_leaf(params, leaf.path), quantize(get_leaf(plain, leaf.path), kernel_type)
    assert found["qvalue"].sharding.shard_shape(found["qvalue"].shape)[2] == leaf.shape[2] // 4
    for part in ("qvalue", "scale"):
      np.testing.assert_array_equal(found[part], expected[part])
  np.testing.assert_array_equal(params["layers"]["attn"]["q"]["bias"], plain["layers"]["attn"]["q"]["bias"])


def test_kernels_of_a_frozen_base_may_have_a_float_type_of_their_own(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors)
  params = load_params(directory, load_config(directory)[0], dtype=jnp.float32, kernel_type="bfloat16")
  assert params["layers"]["attn"]["q"]["kernel"].dtype == jnp.bfloat16
  assert params["layers"]["attn"]["q"]["bias"].dtype == params["embed"]["weight"].dtype == jnp.float32
