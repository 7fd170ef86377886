import dataclasses
import json
import shutil

import numpy as np
import pytest

from amopo_jax.data.sources import open_source
from amopo_jax.run_spec import ContextEntry, SourceSpec
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
  assert list(lines[0]) == [
    "record",
    "context",
    "response",
    "length",
    "sum_logp",
    "mean_p",
    "std_p",
    "reward",
    "index",
    "origin",
  ]


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


@pytest.fixture
def score_records(scoring, world, tmp_path):
  """Scores records made of held-out ones by a function: the new objects' lines as (record, context, …) dicts."""

  def run(records, **data):
    path, out = tmp_path / "records.jsonl", tmp_path / "records.scores.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    entry = SourceSpec(str(path), "native", 1.0)
    score(dataclasses.replace(scoring, data=dataclasses.replace(scoring.data, train={"d": entry}, **data)), str(out))
    return [json.loads(line) for line in out.read_text().splitlines()]

  run.heldout = [json.loads(line) for line in (world / "heldout.jsonl").read_text().splitlines()]
  return run


def of_three(heldout):
  """A record of three responses, the second chosen."""
  first, second = heldout[0], heldout[1]
  responses = [first["responses"][0], first["responses"][1], second["responses"][0]]
  return {"prompt": first["prompt"], "responses": responses, "chosen": 1}


def test_three_responses_are_scored_once_each_as_if_each_stood_beside_the_chosen_one(score_records):
  record = of_three(score_records.heldout)
  lines = score_records([record, record | {"responses": [*record["responses"], record["responses"][0]]}])
  chosen = record["responses"][1]
  twos = [{"prompt": record["prompt"], "responses": [chosen, record["responses"][n]], "chosen": 0} for n in (0, 2)]
  alone = score_records(twos)
  per_context = [alone[4 * 0 + 2 * k + p] for k in range(2) for p in range(2)], alone[4:]
  expected = [line for k in range(2) for line in (*per_context[0][2 * k : 2 * k + 2], per_context[1][2 * k + 1])]
  assert [(line["response"], line["index"]) for line in lines[:6]] == 2 * [
    ("chosen", 1),
    ("rejected", 0),
    ("rejected", 2),
  ]
  assert [line["record"] for line in lines] == 6 * [0] + 8 * [1]
  assert [line["index"] for line in lines[6:]] == 2 * [1, 0, 2, 3]
  for line, one in zip(lines[:6], expected, strict=True):
    assert (line["context"], line["length"]) == (one["context"], one["length"])
    np.testing.assert_allclose(line["sum_logp"], one["sum_logp"], rtol=1e-5)
  for line, copy in ((lines[7], lines[9]), (lines[11], lines[13])):  # the same text in another pair
    np.testing.assert_allclose(line["sum_logp"], copy["sum_logp"], rtol=1e-5)


@pytest.mark.parametrize("rule", ["derived", "annotated", "mean_score", "all_pairs", "dominance"])
def test_ties_and_equal_texts_are_scored_under_every_rule(score_records, rule):
  first = score_records.heldout[0]
  tied = [{**response, "scores": first["responses"][0]["scores"]} for response in first["responses"]]
  equal = [first["responses"][0]] * 2
  lines = score_records([{"prompt": first["prompt"], "responses": two} for two in (tied, equal)], rule=rule)
  assert [(line["record"], line["response"], line["index"]) for line in lines] == [
    (record, *who) for record in range(2) for _ in range(2) for who in (("chosen", 0), ("rejected", 1))
  ]
  assert lines[4]["sum_logp"] == pytest.approx(lines[5]["sum_logp"], rel=1e-5)


def test_without_scores_the_bare_question_is_asked_and_the_first_response_counts_as_chosen(score_records):
  bare = [{"content": response["content"]} for response in score_records.heldout[0]["responses"]]
  record = {"prompt": score_records.heldout[0]["prompt"], "responses": bare}
  lines = score_records([record], contexts={"plain": ContextEntry("", "plain", 0.0, 0.0)})
  assert [(line["response"], line["index"]) for line in lines] == [("chosen", 0), ("rejected", 1)]
  with pytest.raises(InputError, match=r"records.jsonl:1: no score for 'helpfulness'"):
    score_records([record])


def test_several_sources_are_refused(scoring, tmp_path):
  data = dataclasses.replace(scoring.data, train=scoring.data.train | {"e": scoring.data.train["d"]})
  with pytest.raises(InputError, match="2 data sets; score one at a time"):
    score(dataclasses.replace(scoring, data=data), str(tmp_path / "s.jsonl"))


def test_the_layout_does_not_matter(lines, scoring, tmp_path):
  batch = dataclasses.replace(scoring.batch, rows=8, group_rows=8, row_length=160)
  score(dataclasses.replace(scoring, batch=batch), str(tmp_path / "other.jsonl"))
  other = [json.loads(line) for line in (tmp_path / "other.jsonl").read_text().splitlines()]
  for a, b in zip(lines, other, strict=True):
    np.testing.assert_allclose(a["sum_logp"], b["sum_logp"], rtol=1e-5)


def test_a_bucket_needs_no_folder(lines, scoring, bucket):
  score(scoring, "gs://bucket/new/scores.jsonl")
  assert [json.loads(line) for line in bucket.cat_file("bucket/new/scores.jsonl").splitlines()] == lines


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
