import json

import pytest
from etils import epath

from amopo_jax.parts import Parts
from amopo_jax.types import InputError


def test_batches_are_joined_in_order_and_the_folder_goes(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {"a": 1})
  assert parts.open() == 0
  for number in range(11):
    parts.write(number, [{"n": number}])
  assert Parts(path, {"a": 1}).open() == 11
  assert not path.exists()
  parts.finish()
  assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(11))
  assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_batches_of_another_request_are_left_alone(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {"a": 1})
  parts.open()
  parts.write(0, [{"n": 0}])
  with pytest.raises(InputError, match=r"out\.jsonl\.partial: holds batches of another request"):
    Parts(path, {"a": 2}).open()


def test_a_hole_is_where_it_goes_on(tmp_path):
  parts = Parts(epath.Path(tmp_path / "out.jsonl"), {})
  parts.open()
  parts.write(1, [])
  assert parts.open() == 0
