"""Grades against cases written by hand, and what holds for any text."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.lab.graders import (
  GRADERS,
  HIGH,
  LOW,
  correctness,
  count_words,
  grade,
  helpfulness,
  instruction_following,
)
from amopo_jax.lab.responders import RESPONSE_WORDS
from amopo_jax.lab.tasks import Task

REVERSE = Task("reverse", ("ant", "cat", "dog", "elk"), "commas", closing="done")
BRIEF = Task("capitals", ("ant", "cat", "dog"), "dashes", max_words=4)
TEXTS = st.lists(st.sampled_from(RESPONSE_WORDS["text"]), max_size=12).map(" ".join)


@pytest.mark.parametrize(
  "response, grade",
  [
    ("elk , dog , cat , ant", 4),
    ("sure! backwards: elk / dog - cat ant (flipped) more? done", 4),  # all else is not the grader's business
    ("elk , dog , cat", 3),
    ("elk , dog , cat , ANT", 3),
    ("elk , dog , dogs , cat", 3),
    ("dog , cat , ant , elk", 3),
    ("elk , dog , cat , ant , ant", 3),
    ("elk , dog , cat , ant , ant , ant , ant , ant", 2),
    ("cat , ant , elk , dog", 2),
    ("elk", 1),
    ("ant , cat , dog , elk", 1),
    ("ELK , DOG , CAT , ANT", 0),
    ("sure! backwards:", 0),
    ("", 0),
  ],
)
def test_correctness(response, grade):
  assert correctness(REVERSE, response) == grade


@pytest.mark.parametrize(
  "response, grade",
  [
    ("yes! inverted: elk (turned) again? done", 4),
    ("again? (turned) inverted: yes!", 4),
    ("yes! inverted: elk (turned) done", 3),
    ("yes! gladly! hello! sure!", 1),
    ("sorted: elk (raised)", 0),  # talks about another operation
    ("yes ! more ?", 0),
    ("elk , dog , cat , ant done", 0),
    ("", 0),
  ],
)
def test_helpfulness(response, grade):
  assert helpfulness(REVERSE, response) == grade


@pytest.mark.parametrize(
  "response, grade",
  [
    ("elk , dog , cat , ant done", 4),
    ("ant , ant done", 4),  # wrong, but as asked
    ("elk , dog , cat - ant done", 3),
    ("elk , dog - cat - ant done", 2),
    ("elk dog cat ant done", 2),
    ("elk , , dog done", 2),
    ("done elk , dog", 3),
    ("elk , dog", 2),
    ("elk , dog bye", 2),
    ("elk done", 2),
    ("done", 2),
    ("", 0),
  ],
)
def test_instruction_following_with_a_closing_word(response, grade):
  assert instruction_following(REVERSE, response) == grade


@pytest.mark.parametrize(
  "response, grade",
  [
    ("ANT - CAT - DOG", 4),
    ("ANT - CAT - DOG (raised)", 4),
    ("sure! ANT - CAT - DOG (raised)", 2),
    ("sure! ANT - CAT - DOG (raised) more?", 0),
    ("sure! loud: ANT - CAT - DOG (raised) more?", 0),
    ("ANT , CAT , DOG", 2),
    ("sure! ANT , CAT , DOG (raised)", 0),
  ],
)
def test_instruction_following_under_a_limit(response, grade):
  assert instruction_following(BRIEF, response) == grade


def test_all_grades_of_a_response():
  response = "gladly! elk - dog , cat (swapped) done"
  assert grade(REVERSE, response) == {"helpfulness": 2, "correctness": 3, "instruction_following": 3}


@pytest.mark.parametrize(
  "response, grades",
  [
    ("elk , dog , cat , ant done", (4, 4, 4)),
    ("gladly! elk , dog , cat , ant (swapped) more? done", (1, 0, 4)),
    ("sure! elk - dog , cat done", (4, 2, 2)),
    ("elk elk , elk done bye thanks", (3, 4, 2)),
    ("", (4, 4, 0)),
    ("elk", (4, 4, 4)),
  ],
)
def test_dimensions_on_demand(response, grades):
  names = ("brevity", "plainness", "consistency")
  assert grade(REVERSE, response, names) == dict(zip(names, grades, strict=True))


@given(TEXTS | st.text())
def test_any_text_has_grades_in_the_range(response):
  for task in (REVERSE, BRIEF):
    grades = grade(task, response, tuple(GRADERS))
    assert list(grades) == list(GRADERS)
    assert all(LOW <= each <= HIGH for each in grades.values())


@given(st.lists(st.sampled_from(REVERSE.items), max_size=7).map(tuple))
def test_correctness_counts_the_longest_common_subsequence(given_items):
  @functools.cache
  def common(left, right):
    if not left or not right:
      return 0
    if left[0] == right[0]:
      return 1 + common(left[1:], right[1:])
    return max(common(left[1:], right), common(left, right[1:]))

  longer = max(4, len(given_items))
  expected = 4 * common(given_items, ("elk", "dog", "cat", "ant")) // longer
  assert correctness(REVERSE, " , ".join(given_items)) == expected


@given(TEXTS, st.sampled_from(["sure!", "loud:", "(raised)", "more?"]))
def test_a_courtesy_pays_and_costs_under_a_limit(response, courtesy):
  longer = f"{response} {courtesy}"
  assert helpfulness(BRIEF, longer) >= helpfulness(BRIEF, response)
  assert instruction_following(BRIEF, longer) <= instruction_following(BRIEF, response)


@pytest.mark.parametrize(
  "response, count", [("", 0), (", - /", 0), ("sure! ANT , cats (raised) more? done", 6), ("+2 , 13 / -1", 3)]
)
def test_separators_are_no_words(response, count):
  assert count_words(response) == count
