import json

import pytest

from amopo_jax.data.encode import Limits
from amopo_jax.data.encoded import Dropped
from amopo_jax.data.findings import find_pairs
from amopo_jax.data.tokenizer import Tokenizer
from amopo_jax.types import InputError


@pytest.fixture
def one_bad(tmp_path, write_records):
  """Five good records, and a third one without the score of `truth`."""
  lines = write_records(tmp_path / "good.jsonl", 5).read_text().splitlines()
  bad = json.loads(lines[2])
  del bad["responses"][1]["scores"]["truth"]
  lines[2] = json.dumps(bad)
  path = tmp_path / "bad.jsonl"
  path.write_text("\n".join(lines) + "\n")
  return path


def test_every_record_is_found_in_order(dataset):
  found = list(find_pairs(dataset.recipe, 0))
  assert [pair.record for record in found for pair in record.pairs] == list(range(23))
  assert all(record.error is None for record in found)


def test_processes_find_the_same(dataset):
  alone, spread = list(find_pairs(dataset.recipe, 0)), list(find_pairs(dataset.recipe, 2))
  plain = lambda found: [[(*pair[:2], pair.score_gap.tolist(), *pair[3:]) for pair in record.pairs] for record in found]
  assert plain(spread) == plain(alone)


def test_missing_score_raises_or_is_reported(one_bad, make_recipe):
  with pytest.raises(InputError, match=r"bad.jsonl:3: no score for 'truth'"):
    list(find_pairs(make_recipe(one_bad), 0))
  found = list(find_pairs(make_recipe(one_bad, on_error="skip"), 0))
  assert [record.error is not None for record in found] == [False, False, True, False, False]
  assert "bad.jsonl:3: no score for 'truth'" in found[2].error


def test_short_pairs_are_not_tokenised(dataset, tmp_path, write_records, make_recipe, monkeypatch):
  calls = []
  encode = Tokenizer.encode
  monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: calls.append(texts) or encode(self, texts))
  short = make_recipe(write_records(tmp_path / "short.jsonl", 4, most_words=2), limits=Limits(250, 100, "cut"))
  list(find_pairs(short, 0))
  few = len(calls)
  list(find_pairs(dataset.recipe, 0))
  assert len(calls) > few


def test_cut_and_dropped_are_what_encoding_does(tmp_path, write_records, make_recipe):
  path = write_records(tmp_path / "long.jsonl", 12, most_words=80)
  cutting, dropping = (make_recipe(path, limits=Limits(120, 40, policy)) for policy in ("cut", "drop"))
  is_cut = [pair.is_cut for record in find_pairs(cutting, 0) for pair in record.pairs]
  is_dropped = [pair.is_dropped for record in find_pairs(dropping, 0) for pair in record.pairs]
  assert is_cut == [cutting.encode(cutting.pairs(number)[0]).num_cut > 0 for number in range(12)]
  assert 0 < sum(is_dropped) < 12
  assert is_dropped == [isinstance(dropping.encode(dropping.pairs(number)[0]), Dropped) for number in range(12)]
