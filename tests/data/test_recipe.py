import pickle

import numpy as np
import pytest

from amopo_jax.data.encode import Limits
from amopo_jax.data.encoded import Dropped
from amopo_jax.data.fit import Sized
from amopo_jax.data.pack import PackSpec
from amopo_jax.types import InputError


@pytest.fixture
def records(tmp_path, write_records):
  return write_records(tmp_path / "train.jsonl", 6, most_words=60)


def test_pairs_follow_the_rule(records, make_recipe):
  pairs = make_recipe(records).pairs(0)
  assert len(pairs) == 1
  assert pairs[0].origin.endswith("train.jsonl:1")


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ({"on_error": "ignore"}, "unknown on_error 'ignore'"),
    ({"limits": Limits(300, 100, "cut")}, "max_length 300 is more than the row_length 256"),
    ({"pack": PackSpec(256, 4, 8, 2)}, "num_contexts is 2, but there are 3 contexts"),
  ],
)
def test_parts_that_do_not_go_together_are_refused(records, make_recipe, parts, message):
  with pytest.raises(InputError, match=message):
    make_recipe(records, **parts)


def test_a_pair_too_large_for_a_group_is_cut_until_it_fits(records, make_recipe):
  roomy, tight = PackSpec(256, 8, 8, 3), PackSpec(256, 2, 8, 3)
  whole = [make_recipe(records, pack=roomy).encode(make_recipe(records).pairs(n)[0]) for n in range(6)]
  cut = [make_recipe(records, pack=tight).encode(make_recipe(records).pairs(n)[0]) for n in range(6)]
  too_large = [not Sized(pair).fits(2, 256) for pair in whole]
  assert any(too_large)
  for before, after, large in zip(whole, cut, too_large, strict=True):
    assert Sized(after).fits(2, 256)
    assert (after.num_cut > before.num_cut) == large


def test_or_dropped_or_refused(records, make_recipe):
  number = 0
  outcomes = set()
  for number in range(6):
    recipe = make_recipe(records, pack=PackSpec(256, 2, 8, 3), limits=Limits(250, 100, "drop"))
    pair = recipe.pairs(number)[0]
    if isinstance(outcome := recipe.encode(pair), Dropped) and "in all contexts" in outcome.reason:
      strict = make_recipe(records, pack=PackSpec(256, 2, 8, 3), limits=Limits(250, 100, "error"))
      with pytest.raises(InputError, match=r"train.jsonl:\d: .* more than 2 rows hold; use more rows"):
        strict.encode(pair)
    outcomes.add(type(outcome))
  assert Dropped in outcomes


def test_a_recipe_pickles(records, make_recipe):
  recipe = make_recipe(records)
  again = pickle.loads(pickle.dumps(recipe))
  pair = recipe.pairs(2)[0]
  for one, two in zip(recipe.encode(pair).prompts, again.encode(again.pairs(2)[0]).prompts, strict=True):
    np.testing.assert_array_equal(one, two)
