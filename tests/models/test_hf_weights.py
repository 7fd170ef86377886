from contextlib import closing

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save

from amopo_jax.models import hf_weights
from amopo_jax.models.hf_files import open_weights
from amopo_jax.models.hf_import import check_model_dir, load_config, load_params
from amopo_jax.types import InputError

FILE = epath.Path("gs://bucket/model/model.safetensors")


@pytest.fixture
def tensors():
  rng = np.random.default_rng(0)
  return {
    "a": rng.normal(size=(7, 5)).astype(np.float32),
    "b": rng.normal(size=(4,)).astype(ml_dtypes.bfloat16),
    "c": rng.normal(size=(3, 2)).astype(np.float16),
  }


@pytest.fixture
def content(tensors, bucket):
  content = save(tensors)
  bucket.pipe_file("bucket/model/model.safetensors", content)
  return content


@pytest.mark.parametrize("where", [np.s_[:], np.s_[2:5], np.s_[1:3, 2:4], np.s_[6:7, :]])
def test_a_part_is_that_of_the_tensor(content, tensors, where):
  with closing(open_weights(FILE)) as file:
    np.testing.assert_array_equal(file.get_slice("a")[where], tensors["a"][where])


def test_names_shapes_and_types(content, tensors):
  with closing(open_weights(FILE)) as file:
    assert set(file.header) == set(tensors)
    assert [tuple(file.header[name]["shape"]) for name in "abc"] == [(7, 5), (4,), (3, 2)]
    assert [file.header[name]["dtype"] for name in "abc"] == ["F32", "BF16", "F16"]
    np.testing.assert_array_equal(file.get_slice("b")[1:3], tensors["b"][1:3])


def test_only_the_rows_are_read(content, monkeypatch):
  with closing(hf_weights.RemoteWeights(FILE)) as file:
    read, sizes = file._stream.read, []
    monkeypatch.setattr(file._stream, "read", lambda size: sizes.append(size) or read(size), raising=False)
    file.get_slice("a")[2:4, 1:2]
  assert sizes == [2 * 5 * 4]


@pytest.mark.parametrize("kept", [5, 20, -1])
def test_a_file_that_is_cut_off_is_refused(content, bucket, kept):
  bucket.pipe_file("bucket/model/model.safetensors", content[:kept])
  with pytest.raises(InputError, match="truncated or corrupt"):
    open_weights(FILE)


def test_a_missing_file_is_refused(bucket):
  with pytest.raises(InputError, match="missing"):
    open_weights(FILE)


@pytest.mark.parametrize("num_files", [1, 3])
def test_a_model_in_an_object_store_is_that_on_the_disk(write_model, hf_fields, hf_tensors, bucket, num_files):
  local = write_model(hf_fields, hf_tensors, num_files=num_files)
  for file in local.iterdir():
    bucket.pipe_file(f"bucket/here/{file.name}", file.read_bytes())
  assert check_model_dir("gs://bucket/here") == check_model_dir(local)
  config, _ = load_config(local)
  ours, theirs = (load_params(path, config, dtype=np.float32) for path in ("gs://bucket/here", local))
  for a, b in zip(*(map(np.asarray, _leaves(tree)) for tree in (ours, theirs)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_directory_that_is_not_there_is_refused(bucket):
  with pytest.raises(InputError, match="gs://bucket/none: no such directory"):
    check_model_dir("gs://bucket/none")


def _leaves(tree):
  for value in tree.values():
    yield from _leaves(value) if isinstance(value, dict) else [value]
