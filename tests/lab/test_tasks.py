"""Questions and tasks say the same, and the tables of words do not overlap."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.lab.domains import BY_VERB, DOMAINS
from amopo_jax.lab.tasks import CLOSINGS, LAYOUTS, OFFERS, OPENINGS, Task, parse
from amopo_jax.types import InputError

DEMANDS = st.fixed_dictionaries({"closing": st.sampled_from(CLOSINGS)})
DEMANDS |= st.fixed_dictionaries({"max_words": st.integers(0, 20)})


@given(st.sampled_from(sorted(BY_VERB)), st.sampled_from(sorted(LAYOUTS)), DEMANDS, st.data())
def test_parse_is_the_inverse_of_question(verb, layout, demand, data):
  items = data.draw(st.lists(st.sampled_from(BY_VERB[verb].items), min_size=1, max_size=6, unique=True))
  task = Task(verb, tuple(items), layout, **demand)
  assert parse(task.question) == task


def test_a_question_as_it_is_read():
  task = Task("sort", ("yak", "bat", "fig"), "dashes", max_words=5)
  assert task.question == "sort : yak bat fig . with dashes . at most 5 words ."


@pytest.mark.parametrize(
  "question",
  [
    "",
    "sort",
    "shuffle : ant bat . with commas . end with done .",
    "sort : ant bee . with commas . end with done .",
    "sort : 3 1 . with commas . end with done .",
    "double : ant bat . with commas . end with done .",
    "sort : ant ant . with commas . end with done .",
    "sort : . with commas . end with done .",
    "sort : ant bat . with colons . end with done .",
    "sort : ant bat . with commas . end with amen .",
    "sort : ant bat . with commas . at most few words .",
    "sort : ant bat . with commas . at most 05 words .",
    "sort : ant bat . with commas . at most ² words .",
    "sort : ant bat . with commas .",
    "sort : ant  bat . with commas . end with done .",
    "sort : ant bat . with commas . end with done . thanks",
  ],
)
def test_other_lines_are_refused_in_one_line(question):
  with pytest.raises(InputError, match="not of this world; write it like 'reverse : ") as error:
    parse(question)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", DOMAINS)
def test_no_word_of_a_response_has_two_meanings(name):
  domain = DOMAINS[name]
  tables = [domain.forms, CLOSINGS, OPENINGS, OFFERS, LAYOUTS.values()]
  tables += [words for one in domain.operations.values() for words in (one.announcements, one.explanations)]
  for one, other in itertools.combinations(tables, 2):
    assert set(one).isdisjoint(other)
