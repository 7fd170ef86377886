import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from amopo_jax.models.hf_files import read_headers, read_json, resolve_model
from amopo_jax.types import InputError


def one_line(caught: pytest.ExceptionInfo) -> str:
  message = str(caught.value)
  assert "\n" not in message
  assert "; " in message, "no remedy"
  return message


@pytest.mark.parametrize("num_files", [1, 3])
def test_headers_say_where_each_tensor_is(write_model, hf_fields, hf_tensors, num_files):
  directory = write_model(hf_fields, hf_tensors, num_files=num_files)
  headers = read_headers(directory)
  assert {name: header.shape for name, header in headers.items()} == {k: v.shape for k, v in hf_tensors.items()}
  assert {header.dtype for header in headers.values()} == {"F32"}
  assert len({header.file for header in headers.values()}) == num_files


def test_a_missing_shard_is_named(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  (directory / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(InputError, match=r"model-00002-of-00003.safetensors: missing") as caught:
    read_headers(directory)
  one_line(caught)


@pytest.mark.parametrize("kept", [-1, -1000, 20, 0])
def test_a_truncated_shard_is_named(write_model, hf_fields, hf_tensors, kept):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  shard = directory / "model-00003-of-00003.safetensors"
  shard.write_bytes(shard.read_bytes()[:kept])
  with pytest.raises(InputError, match=r"model-00003-of-00003.safetensors: truncated or corrupt") as caught:
    read_headers(directory)
  one_line(caught)


def test_a_file_that_is_no_safetensors_is_named(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors)
  (directory / "model.safetensors").write_bytes(b"<html>404 Not Found</html>" * 9)
  with pytest.raises(InputError, match=r"model.safetensors: truncated or corrupt"):
    read_headers(directory)


def test_a_tensor_in_two_shards_is_that_of_the_one_which_the_index_names(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  index = json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]
  name = next(name for name, shard in index.items() if shard.startswith("model-00001"))
  last = directory / "model-00003-of-00003.safetensors"
  save_file(load_file(last) | {name: np.zeros(3, np.float32)}, last)
  assert read_headers(directory)[name].file.name == "model-00001-of-00003.safetensors"


def test_a_shard_that_lacks_a_tensor_of_the_index_is_named(write_model, hf_fields, hf_tensors):
  directory = write_model(hf_fields, hf_tensors, num_files=3)
  shard = directory / "model-00001-of-00003.safetensors"
  save_file({"other": np.zeros(2, np.float32)}, shard)
  with pytest.raises(InputError, match=r"model-00001-of-00003.safetensors: lacks tensor lm_head.weight"):
    read_headers(directory)


@pytest.mark.parametrize(
  "index",
  ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {"a": 3}}'],
)
def test_a_broken_index_is_named(tmp_path, index):
  (tmp_path / "model.safetensors.index.json").write_text(index)
  with pytest.raises(InputError, match=r"model.safetensors.index.json: ") as caught:
    read_headers(tmp_path)
  one_line(caught)


def test_weights_of_another_kind_are_not_read(tmp_path):
  (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
  with pytest.raises(InputError, match="only safetensors are read"):
    read_headers(tmp_path)


def test_a_directory_without_config_is_no_model(tmp_path):
  with pytest.raises(InputError, match=r"config.json: missing; this directory holds no model") as caught:
    read_json(tmp_path / "config.json")
  one_line(caught)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": }', "\xff"])
def test_broken_json_is_named(tmp_path, text):
  (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError, match=r"config.json: ") as caught:
    read_json(tmp_path / "config.json")
  one_line(caught)


@pytest.mark.parametrize("name", ["/no/such/place", "./no", "no-organisation", "a/b/c", "x y/z"])
def test_what_is_neither_directory_nor_hub_name_is_refused(name):
  with pytest.raises(InputError, match="not a directory; give a model directory") as caught:
    resolve_model(name, with_weights=False)
  one_line(caught)


def test_a_file_is_not_a_model_directory(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({}))
  with pytest.raises(InputError, match=r"config.json: not a directory"):
    resolve_model(tmp_path / "config.json", with_weights=True)


def test_a_hub_name_offline_is_one_line_within_seconds(tmp_path):
  program = (
    "from amopo_jax.models.hf_files import resolve_model\n"
    "from amopo_jax.types import InputError\n"
    "try:\n"
    "  resolve_model('Qwen/Qwen2.5-0.5B-Instruct', with_weights=True)\n"
    "except InputError as error:\n"
    "  print(error)\n"
  )
  environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
  start = time.monotonic()
  done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
  assert done.stdout.splitlines() == [
    "Qwen/Qwen2.5-0.5B-Instruct: no such directory, and not to be had from the Hugging Face Hub (HF_HUB_OFFLINE is set "
    "and it is not in the cache); give a directory, or fetch it where there is a network with "
    "`hf download Qwen/Qwen2.5-0.5B-Instruct`"
  ]
  assert time.monotonic() - start < 30  # of which nearly all is the start of Python


def test_a_hub_name_in_the_cache_is_found_offline(tmp_path, monkeypatch):
  from huggingface_hub import constants

  snapshot = tmp_path / "models--org--tiny" / "snapshots" / "0123abc"
  snapshot.mkdir(parents=True)
  (snapshot / "config.json").write_text("{}")
  refs = tmp_path / "models--org--tiny" / "refs"
  refs.mkdir()
  (refs / "main").write_text("0123abc")
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  assert resolve_model("org/tiny", with_weights=False) == snapshot
