import json

import pytest
from etils import epath

from amopo_jax.parts import Parts
from amopo_jax.types import InputError, RunFailure


def test_batches_are_joined_in_order_and_the_folder_goes(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {"a": 1})
  assert parts.open() == 0
  for number in range(11):
    parts.write(number, [{"n": number}])
  assert Parts(path, {"a": 1}).open() == 11
  assert not path.exists()
  parts.finish(11)
  assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(11))
  assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_batches_of_another_request_are_left_alone(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {"a": 1})
  parts.open()
  parts.write(0, [{"n": 0}])
  with pytest.raises(InputError, match=r"out\.jsonl\.partial: holds batches of another request"):
    Parts(path, {"a": 2}).open()


def test_one_run_at_a_time_writes_batches(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  with Parts(path, {}).held(), pytest.raises(InputError, match="another run"), Parts(path, {}).held():
    pass


def test_a_place_that_cannot_be_written_is_a_line(tmp_path):
  (tmp_path / "out.jsonl.partial").write_text("a file where the folder should be")
  with pytest.raises(RunFailure, match="cannot be written"), Parts(epath.Path(tmp_path / "out.jsonl"), {}).held():
    pass


@pytest.mark.parametrize("kept", [(0, 2), (1,), ()])
def test_batches_that_are_not_all_there_are_no_result(tmp_path, kept):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {})
  parts.open()
  for number in kept:
    parts.write(number, [{}])
  with pytest.raises(RunFailure, match=r"out\.jsonl: another run wrote it, or its batches"):
    parts.finish(2)
  assert not path.exists()


def test_a_result_that_is_there_is_not_written_again(tmp_path):
  path = epath.Path(tmp_path / "out.jsonl")
  parts = Parts(path, {})
  parts.open()
  parts.write(0, [{"n": 0}])
  path.write_text("whole")
  with pytest.raises(RunFailure, match="another run wrote it"):
    parts.finish(1)
  assert path.read_text() == "whole"


def test_batches_without_their_request_are_thrown_away(tmp_path):
  parts = Parts(epath.Path(tmp_path / "out.jsonl"), {})
  (tmp_path / "out.jsonl.partial").mkdir()
  (tmp_path / "out.jsonl.partial" / "000007.jsonl").write_text("{}")
  assert parts.open() == 0
  parts.write(0, [{"n": 0}])
  parts.finish(1)
  assert (tmp_path / "out.jsonl").read_text() == '{"n": 0}\n'


def test_a_hole_is_where_it_goes_on(tmp_path):
  parts = Parts(epath.Path(tmp_path / "out.jsonl"), {})
  parts.open()
  parts.write(1, [])
  assert parts.open() == 0
