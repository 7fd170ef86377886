import pytest

pytest.importorskip("torch")

from benchmarks.generate import measure


def test_both_make_the_same_tokens_and_are_timed():
  found = measure("tiny", batch=4, prompt=8, new=6, rounds=1)
  assert found["same_tokens"] == 1
  assert len(found["seconds"]["ours"]) == len(found["seconds"]["transformers"]) == 1
  assert found["tokens_per_second"]["ours"] == pytest.approx(24 / found["seconds"]["ours"][0])
