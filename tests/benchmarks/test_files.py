import numpy as np
import pytest
from safetensors import safe_open

from amopo_jax.models.hf_import import check_model_dir
from benchmarks.files import fields_of, forget, read, write, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("files") / "model"
  write_model(folder, fields_of(1, 2) | {"vocab_size": 512}, "bfloat16")
  return folder


def test_the_model_is_as_large_as_asked_and_can_be_imported(model):
  assert check_model_dir(model).num_layers == 1
  layer = fields_of(2**31, 2)["num_hidden_layers"]
  assert 2**31 <= size_of(layer) < 2**31 + 2 * (size_of(2) - size_of(1))


def size_of(layers):
  """Bytes in bfloat16, by hand: tables, attention, MLP; norms and biases are next to nothing."""
  return 2 * (2 * 65_536 * 1024 + layers * (2 * 1024 * 1024 + 2 * 1024 * 256 + 3 * 1024 * 5632))


def test_bare_files_are_read_and_written_whole(model, tmp_path):
  forget(model)
  found, buffers = read(model)
  assert found["seconds"] > 0
  assert sum(buffer.size for buffer in buffers) == sum(file.stat().st_size for file in model.glob("*.safetensors"))
  assert write(model, tmp_path / "out")["seconds"] > 0
  (file,) = model.glob("*.safetensors")
  assert (tmp_path / "out" / file.name).stat().st_size == file.stat().st_size
  with safe_open(file, framework="numpy") as weights:
    assert np.isfinite(weights.get_tensor("model.norm.weight").astype(np.float32)).all()
