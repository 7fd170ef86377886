"""A TFDS data set from a HelpSteer2-style file, built and read where importing TensorFlow fails."""

import gzip
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import amopo_jax
from amopo_jax.data.sources import open_source
from amopo_jax.data.tfds_builder import build_tfds
from amopo_jax.types import InputError

ROW = '{"prompt": "%s", "response": "%s", "tone": %s}\n'

BUILD_AND_READ = textwrap.dedent(
  """
  import importlib.abc, importlib.machinery, sys

  class NoTensorFlow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
      return importlib.machinery.ModuleSpec(name, self) if name.partition(".")[0] == "tensorflow" else None

    def exec_module(self, module):
      raise ImportError("TensorFlow is not installed")

  sys.meta_path.insert(0, NoTensorFlow())
  from amopo_jax.data.sources import open_source
  from amopo_jax.data.tfds_builder import build_tfds

  path, data_dir = sys.argv[1:]
  assert build_tfds({"train": path, "validation": path}, data_dir, name="ours") == 8
  files = open_source(path, format="helpsteer2")
  for split in ("ours", "ours:validation"):
    tfds = open_source(f"tfds:{split}", format="helpsteer2", cache_dir=data_dir)
    assert len(tfds) == len(files) == 4
    for number in range(len(files)):
      assert tfds[number].prompt == files[number].prompt
      assert tfds[number].responses == files[number].responses
  assert "tensorflow" not in sys.modules
  print("read back")
  """
)


def test_build_and_read_without_tensorflow(fixtures, tmp_path):
  packed = tmp_path / "rows.jsonl.gz"
  packed.write_bytes(gzip.compress((fixtures / "records" / "helpsteer2.jsonl").read_bytes()))
  environment = {"HF_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(amopo_jax.__file__).parents[1])}
  ran = subprocess.run(
    [sys.executable, "-c", BUILD_AND_READ, str(packed), str(tmp_path / "tfds")],
    capture_output=True,
    text=True,
    env=environment,
  )
  assert ran.returncode == 0, ran.stderr
  assert ran.stdout.endswith("read back\n")


def test_rows_keep_their_order_over_many_records(tmp_path):
  # TFDS sorts by the hash of the key unless told otherwise
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(ROW % (number // 2, f"r{number}", number % 5) for number in range(120)))
  assert build_tfds(str(path), tmp_path / "tfds", name="ordered") == 60
  source = open_source("tfds:ordered", format="helpsteer2", cache_dir=tmp_path / "tfds")
  found = [response.content for number in range(60) for response in source[number].responses]
  assert found == [f"r{number}" for number in range(120)]


def test_an_existing_data_set_is_not_silently_kept(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text(ROW % ("x", "a", 1) + ROW % ("x", "b", 2))
  build_tfds(str(path), tmp_path / "tfds", name="ours")
  with pytest.raises(InputError, match=r"ours/1.0.0: exists already"):
    build_tfds(str(path), tmp_path / "tfds", name="ours")


@pytest.mark.parametrize(
  ("rows", "name", "reason"),
  [
    (
      ROW % ("x", "a", 1) + ROW % ("y", "b", 2),
      "ours",
      r"rows.jsonl:1: this row and the next differ in 'prompt'",
    ),
    (ROW % ("x", "a", 1) + ROW % ("x", "b", '"high"'), "ours", r"'tone' is 'high'; a score must be a number"),
    (
      ROW % ("x", "a", 1) + ROW.replace("tone", "tune") % ("x", "b", 1),
      "ours",
      r"rows.jsonl:2: its fields are",
    ),
    (ROW % ("x", "a", 1), "ours", r"1 rows, but the format takes 2"),
    (ROW % ("x", "a", 1) + ROW % ("x", "b", 2), "Our set", r"name: 'Our set' cannot name a TFDS data set"),
  ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, rows, name, reason):
  path = tmp_path / "rows.jsonl"
  path.write_text(rows)
  with pytest.raises(InputError, match=reason):
    build_tfds(str(path), tmp_path / "tfds", name=name)
  assert not (tmp_path / "tfds").exists()
