"""The world's directory: what is in it, and that it is complete or not there."""

import json

import pytest

from amopo_jax.data.sources import open_source
from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.lab import write
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.tokenizer import vocabulary
from amopo_jax.lab.world import make_record
from amopo_jax.lab.write import write_world
from amopo_jax.types import InputError

SIZES = {"seed": 3, "num_train": 12, "num_heldout": 5}


def contents(directory):
  return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  directory = tmp_path_factory.mktemp("lab") / "deep" / "world"
  return directory, write_world(directory, **SIZES)


def test_the_files(world):
  directory, _ = world
  assert sorted(path.name for path in directory.iterdir()) == [
    "heldout.jsonl",
    "summary.json",
    "tokenizer",
    "train.jsonl",
  ]
  assert [path.name for path in directory.parent.iterdir()] == ["world"]


@pytest.mark.parametrize("split, count", [("train", 12), ("heldout", 5)])
def test_the_package_reads_the_records(world, split, count):
  directory, _ = world
  source = open_source(directory / f"{split}.jsonl", format="native")
  assert len(source) == count
  for number in range(count):
    made = make_record(WorldSpec(), 3, split, number)
    assert source[number].prompt[0].content == made["prompt"][0]["content"]
    assert [dict(response.scores) for response in source[number].responses] == [
      response["scores"] for response in made["responses"]
    ]


def test_the_package_reads_the_tokenizer(world):
  assert load_tokenizer(world[0] / "tokenizer").vocab_size == len(vocabulary())


def test_the_summary_is_returned_and_written(world):
  directory, summary = world
  assert json.loads((directory / "summary.json").read_text()) == json.loads(json.dumps(summary))
  assert (summary["train"]["records"], summary["heldout"]["records"]) == (12, 5)
  assert summary["world"]["seed"] == 3


def test_the_same_arguments_give_the_same_bytes(world, tmp_path):
  write_world(tmp_path, **SIZES)
  assert contents(tmp_path) == contents(world[0])


def test_writing_again_changes_nothing(world):
  directory, summary = world
  times = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
  assert write_world(directory, **SIZES) == summary
  assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == times


@pytest.mark.parametrize("other", [{"seed": 4}, {"num_train": 13}, {"num_heldout": 6}, {"spec": WorldSpec(tied=0.0)}])
def test_another_world_is_not_overwritten(world, other):
  before = contents(world[0])
  with pytest.raises(InputError, match="holds another world or other files; choose another directory"):
    write_world(world[0], **(SIZES | other))
  assert contents(world[0]) == before


def test_other_files_are_not_overwritten(tmp_path):
  (tmp_path / "notes.txt").write_text("keep")
  with pytest.raises(InputError, match="other files"):
    write_world(tmp_path, **SIZES)
  with pytest.raises(InputError, match="other files"):
    write_world(tmp_path / "notes.txt", **SIZES)
  assert contents(tmp_path) == {"notes.txt": b"keep"}


def test_an_interrupted_run_leaves_no_directory_and_the_next_one_completes_it(tmp_path, monkeypatch):
  def stop(*given):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(write, "make_tokenizer", stop)
    with pytest.raises(KeyboardInterrupt):
      write_world(tmp_path / "world", **SIZES)
  assert not (tmp_path / "world").exists()
  write_world(tmp_path / "world", **SIZES)
  assert [path.name for path in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize("counts", [{"num_train": 0}, {"num_heldout": -1}])
def test_a_world_needs_records(tmp_path, counts):
  with pytest.raises(InputError, match="ask for 1 or more"):
    write_world(tmp_path / "world", **(SIZES | counts))
  assert not (tmp_path / "world").exists()
