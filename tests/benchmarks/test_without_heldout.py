"""The lines that are left, against a run's own split."""

import json

import pytest

from amopo_jax.build_data import build_data
from amopo_jax.policy import find_policy, read_run
from amopo_jax.train import train
from amopo_jax.types import InputError
from benchmarks.without_heldout import kept_lines


@pytest.fixture
def run(world, make_spec, console, tmp_path):
  """The workdir of a run whose data have a line separator that is none, and the path of the data."""
  lines = (world / "train.jsonl").read_text().splitlines()
  first = json.loads(lines[0])
  first["responses"][0]["content"] += " \u2028 done"
  path = tmp_path / "train.jsonl"
  path.write_text("".join(line + "\n" for line in [json.dumps(first, ensure_ascii=False), *lines[1:]]))
  source = {"path": str(path), "format": "native", "weight": 1.0}
  spec = make_spec(data__train__world=source, data__heldout={}, data__heldout_fraction=0.25, train__steps=1)
  train(spec, str(tmp_path / "run"), console)
  return tmp_path / "run", path


def test_what_is_left_are_the_training_lines(run):
  workdir, path = run
  spec = read_run(str(workdir)).spec
  heldout = build_data(spec, find_policy(str(workdir), {})).heldout[0]
  out = {int(heldout.recipe.source.origin(int(record)).rsplit(":", 1)[1]) for record in heldout.table[:, 0]}
  lines = path.read_text().split("\n")[:-1]
  kept = kept_lines(str(workdir))
  assert out
  assert set(kept) == {line + "\n" for number, line in enumerate(lines, 1) if number not in out}


def test_formats_of_other_shapes_are_refused(run):
  record = json.loads((run[0] / "run.json").read_text())
  record["config"]["data"]["train"]["world"]["format"] = "helpsteer2"
  (run[0] / "run.json").write_text(json.dumps(record))
  with pytest.raises(InputError, match="is not one record per line"):
    kept_lines(str(run[0]))
