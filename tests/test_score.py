import dataclasses
import json
import shutil

import numpy as np
import pytest

from amopo_jax.data.sources import open_source
from amopo_jax.run_spec import SourceSpec
from amopo_jax.score import score
from amopo_jax.types import InputError, RunFailure


@pytest.fixture(scope="module")
def scoring(trained, make_spec, world):
  """A spec that scores the held-out records with the trained policy."""
  workdir, _ = trained
  spec = make_spec(train__epochs=3)
  data = dataclasses.replace(
    spec.data, train={"d": SourceSpec(f"{world}/heldout.jsonl", "native", 1.0)}, heldout={}, heldout_fraction=0.0
  )
  return dataclasses.replace(spec, data=data, model=dataclasses.replace(spec.model, path=str(workdir), arch={}))


@pytest.fixture(scope="module")
def lines(scoring, tmp_path_factory):
  out = tmp_path_factory.mktemp("score") / "scores.jsonl"
  count = score(scoring, str(out)).num_lines
  found = [json.loads(line) for line in out.read_text().splitlines()]
  assert count == len(found)
  return found


def test_one_line_per_record_context_and_response_in_the_order_of_the_file(lines, scoring):
  expected = [
    (record, context, member)
    for record in range(8)
    for context in scoring.data.contexts
    for member in ("chosen", "rejected")
  ]
  assert [(line["record"], line["context"], line["response"]) for line in lines] == expected
  assert list(lines[0]) == ["record", "context", "response", "length", "sum_logp", "mean_p", "std_p", "reward", "pair"]


def test_lengths_count_the_words_and_the_end_of_turn(lines, world):
  source = open_source(f"{world}/heldout.jsonl", format="native")
  for line in lines:
    record = source[line["record"]]
    response = record.responses[record.chosen if line["response"] == "chosen" else 1 - record.chosen]
    assert line["length"] == len(response.content.split()) + 1


def test_rewards_are_beta_times_the_mean_and_probabilities_are_probabilities(lines, scoring):
  for line in lines:
    np.testing.assert_allclose(line["reward"], scoring.objective.beta * line["sum_logp"] / line["length"], rtol=1e-5)
    assert 0 <= line["mean_p"] <= 1
    assert line["std_p"] >= 0


def test_the_layout_does_not_matter(lines, scoring, tmp_path):
  batch = dataclasses.replace(scoring.batch, rows=8, group_rows=8, row_length=160)
  score(dataclasses.replace(scoring, batch=batch), str(tmp_path / "other.jsonl"))
  other = [json.loads(line) for line in (tmp_path / "other.jsonl").read_text().splitlines()]
  for a, b in zip(lines, other, strict=True):
    np.testing.assert_allclose(a["sum_logp"], b["sum_logp"], rtol=1e-5)


def test_a_folder_that_is_not_there_is_said_before_anything_is_scored(scoring, tmp_path):
  with pytest.raises(InputError, match="does not exist"):
    score(scoring, str(tmp_path / "no" / "scores.jsonl"))


def test_a_folder_and_a_full_disk_are_said_in_one_line_and_leave_nothing(scoring, tmp_path, monkeypatch):
  with pytest.raises(InputError, match="is a folder"):
    score(scoring, str(tmp_path))

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("amopo_jax.score._lines", full)
  with pytest.raises(RunFailure, match="No space left on device"):
    score(scoring, str(tmp_path / "s.jsonl"))
  assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_not_there_is_named(scoring, tmp_path):
  with pytest.raises(InputError, match=r"no checkpoint 99999; there are \["):
    score(scoring, str(tmp_path / "s.jsonl"), step=99999)


def test_a_broken_checkpoint_is_said_in_one_line(scoring, trained, tmp_path):
  workdir = tmp_path / "broken"
  shutil.copytree(trained[0], workdir)
  for file in (workdir / "checkpoints").rglob("state/**/d/*"):
    file.write_bytes(file.read_bytes()[:50])
  spec = dataclasses.replace(scoring, model=dataclasses.replace(scoring.model, path=str(workdir)))
  with pytest.raises(InputError, match=r"checkpoints/\d+: cannot be read .*--step"):
    score(spec, str(tmp_path / "s.jsonl"))
