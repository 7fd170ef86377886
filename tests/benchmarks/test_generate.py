import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.generate import largest_gap, measure, save_random, theirs


def test_both_make_the_same_tokens_and_are_timed():
  found = measure("tiny", batch=8, prompt=8, new=6, rounds=1)
  assert found["same_tokens"] == 1
  assert len(found["seconds"]["ours"]) == len(found["seconds"]["transformers"]) == 1
  assert found["tokens_per_second"]["ours"] == pytest.approx(48 / found["seconds"]["ours"][0])


def test_responses_that_part_are_measured_where_they_part(tmp_path):
  model = save_random("tiny", tmp_path)
  prompts = np.arange(1, 17).reshape(2, 8)
  found = theirs(model, prompts, 5)
  assert largest_gap(model, prompts, found, found) == 0
  other = found.copy()
  other[1, 2:] = (other[1, 2] + 7) % 512
  assert largest_gap(model, prompts, other, found) > 1e-3
