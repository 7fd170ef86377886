import numpy as np
import pytest

from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.encode import Limits
from amopo_jax.data.survey import survey
from amopo_jax.types import InputError


def test_random_access_encodes_the_pair_of_the_table(dataset, tokenizer):
  assert len(dataset) == 23
  for index in (22, 0, 7):
    encoded = dataset[index]
    assert encoded.index == index
    assert encoded.origin.endswith(f"train.jsonl:{index + 1}")
    assert tokenizer.decode(encoded.responses[0]) == dataset.pair(index).chosen.content + "<|im_end|>"


def test_access_is_repeatable(dataset):
  for one, two in zip(dataset[3].prompts, dataset[3].prompts, strict=True):
    np.testing.assert_array_equal(one, two)


def test_several_pairs_of_a_record(tmp_path, make_recipe):
  path = tmp_path / "many.jsonl"
  responses = ", ".join(f'{{"content": "boat {n}", "scores": {{"help": {n}, "truth": {n}}}}}' for n in range(3))
  path.write_text(f'{{"prompt": "why?", "responses": [{responses}]}}\n')
  recipe = make_recipe(path, rule="all_pairs")
  many = PairDataset(recipe, survey(recipe).table)
  np.testing.assert_array_equal(many.table, [[0, 0], [0, 1], [0, 2]])
  assert [(many.pair(n).chosen.content, many.pair(n).rejected.content) for n in range(3)] == [
    ("boat 1", "boat 0"),
    ("boat 2", "boat 0"),
    ("boat 2", "boat 1"),
  ]


def test_a_pair_that_became_too_long_is_an_error(tmp_path, write_records, make_recipe):
  path = write_records(tmp_path / "train.jsonl", 3)
  recipe = make_recipe(path, limits=Limits(64, 20, "drop"))
  stale = PairDataset(recipe, np.asarray([[0, 0], [1, 0], [2, 0]], np.int32))
  with pytest.raises(InputError, match="the file has changed since it was surveyed"):
    [stale[number] for number in range(3)]
