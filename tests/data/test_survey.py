import json

import numpy as np
import pytest

from amopo_jax.data.encode import Limits
from amopo_jax.data.survey import survey
from amopo_jax.types import InputError

HELP = (3, 1), (2, 2), (0, 4), (1, 1), (4, 0)
TRUTH = (1, 1), (3, 2), (4, 0), (1, 1), (0, 4)


@pytest.fixture
def records(tmp_path):
  """Five records with the scores above; the fourth and the fifth have equal means."""
  path = tmp_path / "train.jsonl"
  with path.open("w") as file:
    for helpful, true in zip(HELP, TRUTH, strict=True):
      scores = [{"help": h, "truth": t} for h, t in zip(helpful, true, strict=True)]
      responses = [{"content": f"the boat {n}", "scores": score} for n, score in enumerate(scores)]
      file.write(json.dumps({"prompt": "why?", "responses": responses}) + "\n")
  return path


def test_counts_of_ties_inversions_and_undecided(records, make_recipe):
  found = survey(make_recipe(records, rule="mean_score"))
  assert (found.num_records, found.num_pairs, found.num_undecided) == (5, 2, 3)
  assert found.num_tied == (0, 1 - 1 + 1, 1)
  assert found.num_inverted == (0, 0, 0)
  np.testing.assert_array_equal(found.table, [[0, 0], [1, 0]])


def test_inversions_of_the_annotators_choice(tmp_path, records, make_recipe):
  path = tmp_path / "chosen.jsonl"
  rows = [json.loads(line) | {"chosen": 0} for line in records.read_text().splitlines()]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  found = survey(make_recipe(path))
  assert found.num_pairs == 5
  assert found.num_tied == (0, 2, 2)
  assert found.num_inverted == (0, 1, 1)


def test_cut_dropped_and_skipped(tmp_path, write_records, make_recipe):
  path = write_records(tmp_path / "long.jsonl", 12, most_words=80)
  cut = survey(make_recipe(path, limits=Limits(120, 40, "cut")))
  assert (cut.num_pairs, cut.num_dropped) == (12, 0)
  assert 0 < cut.num_cut < 12
  dropped = survey(make_recipe(path, limits=Limits(120, 40, "drop")))
  assert dropped.num_dropped == cut.num_cut
  assert dropped.num_pairs == len(dropped.table) == 12 - cut.num_cut
  bad = json.loads(path.read_text().splitlines()[0])
  bad["responses"][0]["scores"] = {"help": 7, "truth": 1}
  path.write_text(path.read_text() + json.dumps(bad) + "\n")
  with pytest.raises(InputError, match=r"long.jsonl:13: 'help' is 7, outside"):
    survey(make_recipe(path))
  skipped = survey(make_recipe(path, on_error="skip"))
  assert (skipped.num_records, skipped.num_skipped, skipped.num_pairs) == (13, 1, 12)
  assert "long.jsonl:13" in skipped.skip_reasons[0].example


def test_records_that_the_source_leaves_out_are_counted_too(tmp_path, write_records, make_recipe):
  path = write_records(tmp_path / "broken.jsonl", 12)
  path.write_text("{\n" + path.read_text())
  found = survey(make_recipe(path, on_error="skip"))
  assert (found.num_records, found.num_skipped, found.num_pairs) == (13, 1, 12)
  assert "broken.jsonl:1: broken JSON" in found.skip_reasons[0].example


def test_nothing_to_train_on_is_an_error(records, make_recipe):
  path = records.with_name("tied.jsonl")
  path.write_text(records.read_text().splitlines()[3] + "\n")
  with pytest.raises(InputError, match="no pair is left"):
    survey(make_recipe(path, rule="mean_score"))
