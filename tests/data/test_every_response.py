"""What is scored of a record: each response once, under the same prompts."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.data.encode import Limits
from amopo_jax.data.every_response import SCORING_RULES
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pairs import RULES
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.records import Message, Record, Response
from amopo_jax.types import InputError

RANGES = {"help": (0, 4), "truth": (0, 4)}


def make_record(*scores, chosen=None, texts=None):
  texts = texts or [f"text {number}" for number in range(len(scores))]
  responses = [Response(text, {"help": help, "truth": 2}) for text, help in zip(texts, scores, strict=True)]
  return Record((Message("user", "Why?"),), tuple(responses), chosen, "set.jsonl:3")


@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.sampled_from(sorted(RULES)), st.data())
def test_every_response_has_one_place_and_the_preferred_one_is_first(scores, rule, data):
  chosen = data.draw(st.none() | st.integers(0, len(scores) - 1))
  flat = [number for two in SCORING_RULES[rule].places(make_record(*scores, chosen=chosen), RANGES) for number in two]
  if len(scores) % 2:
    assert flat[-1] == flat.pop()
  by_mean = scores.index(max(scores))
  first = chosen if chosen is not None and rule in ("derived", "annotated") else by_mean
  assert flat == [first, *(number for number in range(len(scores)) if number != first)]


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"both_ways"}))  # which makes two of them
def test_two_responses_make_the_pair_of_the_rule_itself(rule):
  for record in (make_record(1, 3, chosen=0), make_record(1, 3, chosen=1), make_record(3, 1, chosen=1)):
    ((pair,), (scored,)) = RULES[rule](record, RANGES), SCORING_RULES[rule](record, RANGES)
    texts = lambda p: (p.chosen.content, p.rejected.content)
    assert texts(scored) == texts(pair)
    assert scored.chosen.scores == scored.rejected.scores == pair.chosen.scores
    assert scored.others == ()


def test_without_a_dimension_the_first_is_preferred_unless_one_was_chosen():
  assert SCORING_RULES["derived"].places(make_record(1, 3), {}) == [(0, 1)]
  assert SCORING_RULES["mean_score"].places(make_record(1, 3, chosen=1), {}) == [(1, 0)]


def test_a_score_that_the_preference_needs_must_be_there():
  with pytest.raises(InputError, match=r"set.jsonl:3: no score for 'tone'"):
    SCORING_RULES["derived"](make_record(1, 3), {"tone": (0, 1)})


@pytest.mark.parametrize("rows", [8, 2])
def test_all_responses_of_a_record_get_the_same_prompts_also_where_they_are_cut(
  rows, tokenizer, contexts, dataset, text
):
  """The longest response is in one pair; a record of long and short ones, and a group that holds no pair as it is."""
  rng = np.random.default_rng(0)
  long, short = text(rng, 60, 61), text(rng, 1, 3)
  record = make_record(4, 3, 2, 1, 0, texts=[short, short + " a", short + " b", long, short + " c"])
  record = Record((Message("user", text(rng, 100, 101)),), record.responses, None, record.origin)
  pack = PackSpec(256, rows, 8, 3)
  recipe = Recipe(
    dataset.recipe.source, SCORING_RULES["derived"], contexts, tokenizer, Limits(250, 100, "cut"), pack, "raise"
  )
  encoded = [recipe.encode(pair) for pair in recipe.rule(record, contexts.ranges)]
  assert len(encoded) == 3
  assert all(pair.num_cut > 0 for pair in encoded)
  for pair in encoded[1:]:
    for one, two in zip(encoded[0].prompts, pair.prompts, strict=True):
      np.testing.assert_array_equal(one, two)
  assert any(len(response) > 40 for response in encoded[1].responses)


def test_the_rules_pickle():
  rule = SCORING_RULES["derived"]
  assert pickle.loads(pickle.dumps(rule)) == rule
