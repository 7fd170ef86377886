"""f(x, d): one instruction per context, wherever it goes, and what the scores say of a pair's order."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.data.contexts import PLACES, Context, ContextSpec, condition, order, render, wanted
from amopo_jax.data.records import Message, Pair, Response
from amopo_jax.types import InputError

OVERALL = Context("overall", None, "Answer well.")
TONE = Context("tone", "tone", "Mind the {dimension}: {score}.", 0, 4)
PLAIN = Context("plain", None, "plain")
DIALOGUE = (
  Message("system", "You are a cook."),
  Message("user", "Soup?"),
  Message("assistant", "Gladly."),
  Message("user", "Which?"),
)


def make_pair(chosen=3.0, rejected=1.0, prompt=DIALOGUE) -> Pair:
  return Pair(prompt, Response("Leek.", {"tone": chosen}), Response("No.", {"tone": rejected}), "set.jsonl:5")


def test_before_and_after_touch_the_last_question_only():
  pair = make_pair()
  before = render(DIALOGUE, pair, TONE, "before")
  after = render(DIALOGUE, pair, TONE, "after")
  assert before == (*DIALOGUE[:-1], Message("user", "Mind the tone: 4.\n\nWhich?"))
  assert after == (*DIALOGUE[:-1], Message("user", "Which?\n\nMind the tone: 4."))


def test_system_is_appended_to_an_existing_system_message_or_becomes_one():
  pair = make_pair()
  assert render(DIALOGUE, pair, OVERALL, "system") == (
    Message("system", "You are a cook.\n\nAnswer well."),
    *DIALOGUE[1:],
  )
  assert render(DIALOGUE[1:], pair, OVERALL, "system") == (Message("system", "Answer well."), *DIALOGUE[1:])


@pytest.mark.parametrize("place", PLACES)
def test_plain_leaves_the_prompt_alone(place):
  assert render(DIALOGUE, make_pair(), PLAIN, place) == DIALOGUE


def test_the_chosen_score_conditions_whichever_dimension_prefers_the_other():
  assert "tone: 2." in render(DIALOGUE, make_pair(chosen=1.0, rejected=4.0), TONE, "before")[-1].content


def test_a_score_of_ones_choice():
  assert condition(DIALOGUE, TONE, 4.0, "after")[-1].content == "Which?\n\nMind the tone: 5."


TOLD = Context("all", None, "tone {raw_score:tone} and truth {raw_score:truth} of 4", 0, 4)


def test_a_context_may_tell_the_scores_of_several_dimensions_and_have_none_itself():
  pair = Pair(DIALOGUE, Response("Leek.", {"tone": 1.0, "truth": 3.0}), Response("No.", {"tone": 2.0}), "set.jsonl:5")
  assert render(DIALOGUE, pair, TOLD, "after")[-1].content == "Which?\n\ntone 1 and truth 3 of 4"
  assert condition(DIALOGUE, TOLD, 4, "after")[-1].content == "Which?\n\ntone 4 and truth 4 of 4"
  spec = ContextSpec((TOLD,), "after")
  assert spec.ranges == {}  # what is told does not order
  assert (order(pair, spec)[0].item(), order(pair, spec)[1].item()) == (True, 1.0)


def test_a_told_score_that_is_missing_names_the_record():
  pair = Pair(DIALOGUE, Response("Leek.", {"tone": 1.0}), Response("No.", {}), "set.jsonl:5")
  with pytest.raises(InputError, match=r"set.jsonl:5: no score for 'truth'"):
    render(DIALOGUE, pair, TOLD, "before")


@given(st.permutations([OVERALL, TONE, PLAIN]), st.sampled_from(PLACES))
def test_contexts_never_pile_up(contexts, place):
  # the released code's bug: each context was rendered on top of the ones before (method.md, row 1)
  pair = make_pair()
  for context in contexts:
    text = "".join(message.content for message in render(pair.prompt, pair, context, place))
    assert text.count("Answer well.") == (context is OVERALL)
    assert text.count("Mind the tone") == (context is TONE)
  assert pair.prompt == DIALOGUE


@pytest.mark.parametrize(
  ("chosen", "rejected", "ordered", "gap"),
  [(3.0, 1.0, True, 0.5), (2.0, 2.0, False, 0.0), (0.0, 4.0, False, -1.0)],
)
def test_order_and_gap_per_context(chosen, rejected, ordered, gap):
  spec = ContextSpec((OVERALL, TONE), "before")
  is_ordered, score_gap = order(make_pair(chosen, rejected), spec)
  np.testing.assert_array_equal(is_ordered, [True, ordered])
  np.testing.assert_array_equal(score_gap, np.asarray([1.0, gap], np.float32))


def test_the_gap_is_a_share_of_the_declared_range():
  spec = ContextSpec((Context("tone", "tone", "rubric", 1, 5),), "before")
  assert order(make_pair(4.0, 1.0), spec)[1].item() == 0.75


@pytest.mark.parametrize("member", ["chosen", "rejected"])
def test_order_needs_both_scores_inside_the_range(member):
  spec = ContextSpec((TONE,), "before")
  with pytest.raises(InputError, match=r"set.jsonl:5: 'tone' is 5, outside the declared range 0 to 4"):
    order(make_pair(**{member: 5.0}), spec)


def test_a_missing_score_names_the_record():
  pair = Pair(DIALOGUE, Response("Leek.", {}), Response("No.", {}), "set.jsonl:5")
  with pytest.raises(InputError, match=r"set.jsonl:5: no score for 'tone' \(scored: none\)"):
    render(DIALOGUE, pair, TONE, "before")


def test_a_spec_tells_names_and_ranges():
  spec = ContextSpec((OVERALL, TONE), "system")
  assert spec.names == ("overall", "tone")
  assert spec.ranges == {"tone": (0, 4)}


@pytest.mark.parametrize(
  ("contexts", "place", "reason"),
  [
    ((), "before", "none given"),
    ((OVERALL, OVERALL), "before", "names 'overall' occurs 2 times"),
    ((TONE, Context("again", "tone", "rubric", 0, 4)), "before", "dimensions 'tone' occurs 2 times"),
    ((OVERALL,), "below", "unknown place 'below'"),
    ((Context("tone", "tone", "rubric", 4, 4),), "before", "low must be below high"),
    ((Context("tone", "tone", "rubric", 0, float("nan")),), "before", "low must be below high"),
    ((Context("tone", "tone", "rubric"),), "before", "'tone' has no score range"),
    ((Context("all", None, "overall", 0, 4),), "before", "score range but no dimension"),
    ((Context("all", None, "rubric"),), "before", "uses '{dimension}' but has no dimension"),
    ((Context("all", None, "tone {score:tone} of {high}", 0, 4),), "before", "uses '{high}' but has no dimension"),
    ((Context("all", None, "tone {score:tone}"),), "before", "'all' has no score range"),
    ((Context("tone", "tone", "my {own}", 0, 4),), "before", "unknown placeholder '{own}'"),
  ],
)
def test_a_spec_that_makes_no_sense_is_refused(contexts, place, reason):
  with pytest.raises(InputError) as caught:
    ContextSpec(contexts, place)
  assert str(caught.value).startswith("contexts: ")
  assert reason in str(caught.value)


@pytest.mark.parametrize(
  "asked, weights", [({}, [1, 1]), ({"tone": 1}, [1, 1]), ({"tone": 3, "taste": 1}, [1, 3]), ({"taste": 2}, [1, 0])]
)
def test_what_a_turn_wants_by_context(asked, weights):
  pair = dataclasses.replace(make_pair(), wanted=asked)
  np.testing.assert_array_equal(wanted(pair, ContextSpec((OVERALL, TONE), "before")), weights)


def test_a_turn_that_wants_what_no_context_is_about_is_refused():
  pair = dataclasses.replace(make_pair(), wanted={"taste": 1})
  with pytest.raises(InputError, match=r"set\.jsonl:5: wants taste, of which no context is; add it"):
    wanted(pair, ContextSpec((TONE,), "before"))
