"""The rules that choose pairs, against their definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.data.pairs import RULES
from amopo_jax.data.records import Message, Record, Response
from amopo_jax.types import InputError

RANGES = {"tone": (1, 5), "truth": (0, 1)}


def make_record(*scores: tuple[float, float], chosen=None, texts="abcdefgh") -> Record:
  responses = tuple(
    Response(text, {"tone": tone, "truth": truth}) for text, (tone, truth) in zip(texts, scores, strict=False)
  )
  return Record((Message("user", "Why?"),), responses, chosen, "set.jsonl:3")


def letters(rule: str, record: Record) -> list[str]:
  """The pairs as "chosen over rejected", e.g. "ab"."""
  return [pair.chosen.content + pair.rejected.content for pair in RULES[rule](record, RANGES)]


def test_annotated_sets_the_choice_against_each_other_response_whatever_the_scores():
  assert letters("annotated", make_record((5, 1), (1, 0), (3, 0), chosen=1)) == ["ba", "bc"]


def test_annotated_needs_a_choice():
  with pytest.raises(InputError, match=r"set.jsonl:3: no 'chosen'"):
    RULES["annotated"](make_record((1, 0), (2, 0)), RANGES)


def test_scores_are_normalised_before_they_are_averaged():
  # raw means 2.5 and 2.0; normalised (0.75 + 0) / 2 = 0.375 and (0.5 + 1) / 2 = 0.75
  assert letters("mean_score", make_record((4, 0), (3, 1))) == ["ba"]


def test_mean_score_takes_the_best_against_the_worst():
  assert letters("mean_score", make_record((3, 0.5), (5, 1), (2, 0.5), (1, 0))) == ["bd"]


def test_mean_score_gives_nothing_where_all_means_are_equal():
  # (1/3 + 2/3) / 2 and (2/3 + 1/3) / 2 differ in the last bit
  assert letters("mean_score", make_record((1 + 4 / 3, 2 / 3), (1 + 8 / 3, 1 / 3))) == []


def test_all_pairs_orders_each_two_and_leaves_out_ties():
  assert letters("all_pairs", make_record((1, 0), (5, 1), (1, 0))) == ["ba", "bc"]


def test_dominance_leaves_out_pairs_on_which_the_dimensions_disagree():
  #   a            b           c: above a in both, ties b in truth and beats it in tone
  assert letters("dominance", make_record((2, 0), (1, 1), (3, 1))) == ["ca", "cb"]


def test_both_ways_takes_each_response_once_as_the_chosen_one():
  assert letters("both_ways", make_record((1, 0), (5, 1), chosen=0)) == ["ab", "ba"]
  assert letters("both_ways", make_record((1, 0), (5, 1), (2, 0))) == ["ab", "bc", "ca"]
  assert letters("both_ways", make_record((1, 0), (5, 1), (2, 0), texts="aab")) == ["ab", "ab", "ba"]


def test_derived_follows_the_annotation_where_there_is_one():
  assert letters("derived", make_record((1, 0), (5, 1), chosen=0)) == ["ab"]
  assert letters("derived", make_record((1, 0), (5, 1))) == ["ba"]


@pytest.mark.parametrize("rule", RULES)
def test_equal_texts_make_no_pair(rule):
  assert letters(rule, make_record((1, 0), (5, 1), chosen=1, texts="aa")) == []


@pytest.mark.parametrize("rule", ["mean_score", "all_pairs", "dominance", "derived"])
def test_rules_by_score_need_a_dimension_and_every_score(rule):
  record = make_record((1, 0), (5, 1))
  with pytest.raises(InputError, match=r"set.jsonl:3: nothing orders the responses"):
    RULES[rule](record, {})
  with pytest.raises(InputError, match=r"set.jsonl:3: no score for 'humour'"):
    RULES[rule](record, {"humour": (0, 1)})


SCORES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 1)), min_size=2, max_size=6)


@given(SCORES)
def test_every_pair_has_the_higher_mean_chosen_and_is_complete(scores):
  record = make_record(*[(float(tone), float(truth)) for tone, truth in scores])
  means = {letter: (tone - 1) / 4 + truth for letter, (tone, truth) in zip("abcdefgh", scores, strict=False)}
  found = letters("all_pairs", record)
  assert all(means[high] > means[low] for high, low in found)
  ordered = {(high, low) for high in means for low in means if means[high] > means[low]}
  assert {tuple(pair) for pair in found} == ordered
  assert set(letters("dominance", record)) <= set(found)
  assert len(letters("mean_score", record)) == (len(set(means.values())) > 1)
