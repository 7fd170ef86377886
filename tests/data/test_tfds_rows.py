"""TFDS examples as plain rows."""

import json
import pickle

import numpy as np
import pytest

from amopo_jax.data.tfds_builder import build_tfds
from amopo_jax.data.tfds_rows import TfdsRows
from amopo_jax.types import InputError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tfds")
  rows = [{"prompt": f"p{n // 2} é", "response": f"r{n}", "tone": n / 2} for n in range(10)]
  (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  build_tfds(str(folder / "rows.jsonl"), folder, name="ours")
  return folder


def test_examples_are_plain_python_values(data_dir):
  rows = TfdsRows("tfds:ours", data_dir)
  assert len(rows) == 10
  assert rows[3] == {"prompt": "p1 é", "response": "r3", "tone": 1.5}
  assert type(rows[3]["tone"]) is float
  assert rows.origin(3) == "tfds:ours:3"


def test_nested_examples_are_plain_too(monkeypatch):
  example = {
    "responses": [{"content": b"\xc3\xa9", "scores": {"tone": np.float32(0.5)}}],
    "names": np.asarray([b"a", b"b"], object),
    "chosen": np.int64(1),
  }
  monkeypatch.setattr("tensorflow_datasets.data_source", lambda name, **options: [example])
  assert repr(TfdsRows("tfds:any")[0]) == repr(
    {"responses": [{"content": "é", "scores": {"tone": 0.5}}], "names": ["a", "b"], "chosen": 1}
  )


def test_a_split_can_be_sliced(data_dir):
  rows = TfdsRows("tfds:ours:train[4:6]", data_dir)
  assert [rows[number]["response"] for number in range(len(rows))] == ["r4", "r5"]


def test_rows_survive_pickling(data_dir):
  assert pickle.loads(pickle.dumps(TfdsRows("tfds:ours", data_dir)))[9]["response"] == "r9"


@pytest.mark.parametrize("path", ["tfds:theirs", "tfds:ours:test", "tfds:ours/other"])
def test_what_is_not_prepared_is_refused_in_one_line(data_dir, path):
  with pytest.raises(InputError, match=f"^{path}: no prepared array_record data set") as caught:
    TfdsRows(path, data_dir)
  assert "\n" not in str(caught.value)
