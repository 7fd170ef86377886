import pathlib

import pytest

from amopo_jax import remote


def write(folder):
  (folder / "a.json").write_text("{}")
  (folder / "vocab.txt").write_text("b")


class Bucket:
  """A folder that looks remote to the code under test and lies on the local disk."""

  def __init__(self, root):
    self._root = root

  def __call__(self, path):
    return self._root / path.removeprefix("gs://")


def test_a_local_folder_is_written_in_place(tmp_path):
  remote.write_folder(str(tmp_path / "x"), write)
  assert {file.name for file in (tmp_path / "x").iterdir()} == {"a.json", "vocab.txt"}
  assert remote.local_folder(str(tmp_path / "x")) == str(tmp_path / "x")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  monkeypatch.setattr(remote.epath, "Path", Bucket(tmp_path))


@pytest.mark.usefixtures("bucket")
def test_a_remote_folder_is_copied_there_and_back_but_for_weights_and_subfolders(tmp_path):
  remote.write_folder("gs://run/model", write)
  for name in ("model.safetensors", "pytorch_model.bin", "consolidated.00.pth"):
    (tmp_path / "run" / "model" / name).write_bytes(b"many")
  (tmp_path / "run" / "model" / "tokenizer_of_old").mkdir()
  local = pathlib.Path(remote.local_folder("gs://run/model"))
  assert {file.name: file.read_text() for file in local.iterdir()} == {"a.json": "{}", "vocab.txt": "b"}
  assert remote.local_folder("gs://run/model") == str(local)
