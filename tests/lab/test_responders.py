"""Responders earn what their skill promises; the optimum earns the most that the task allows."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import DIMENSIONS, GRADERS, count_words, grade
from amopo_jax.lab.responders import (
  CONFUSION,
  LEVELS,
  RESPONSE_WORDS,
  Skill,
  babble,
  compose,
  draw_skill,
  optimum,
  respond,
)
from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.lab.tasks import LAYOUTS, Task
from amopo_jax.lab.world import draw_task

OPEN = Task("plurals", ("ant", "cat", "dog"), "slashes", closing="bye")
BRIEF = Task("sort", ("van", "cat", "jar"), "dashes", max_words=5)
PERFECT, HOPELESS = Skill(1.0, 1.0, 1.0), Skill(0.0, 0.0, 0.0)
SEEDS = st.integers(0, 2**32)


def mean_grades(skill: Skill, spec: WorldSpec = DEFAULT_SPEC, count: int = 600) -> dict[str, float]:
  rng = random.Random(7)
  tasks = [draw_task(spec, rng) for _ in range(count)]
  grades = [grade(task, respond(task, skill, rng)) for task in tasks]
  return {dimension: statistics.mean(each[dimension] for each in grades) for dimension in DIMENSIONS}


def test_compose_keeps_the_order_of_the_parts_and_leaves_out_empty_ones():
  assert compose(("a", "b"), ["dashes"], ("yes!", "many:", "(so)", "more?"), "bye") == "yes! many: a - b (so) more? bye"
  assert compose(("a", "b", "c"), ["commas", "slashes"], ("", "", "(so)", ""), "") == "a , b / c (so)"


@given(SEEDS)
def test_perfect_skill_does_everything_right(seed):
  grades = grade(OPEN, respond(OPEN, PERFECT, random.Random(seed)))
  assert grades["helpfulness"] == grades["instruction_following"] == 4
  brief = respond(BRIEF, PERFECT, random.Random(seed))
  assert count_words(brief) <= 5
  assert grade(BRIEF, brief)["instruction_following"] == 4


@given(SEEDS)
def test_no_skill_shows_the_habits(seed):
  response = respond(OPEN, HOPELESS, random.Random(seed))
  items = [token for token in response.split() if token in OPEN.items]
  assert items == [item for item in OPEN.items if item in items] != []
  assert "/" not in response
  assert "bye" not in response
  assert grade(OPEN, response) == {"helpfulness": 0, "correctness": 0, "instruction_following": 0}


def test_without_skill_a_courtesy_is_at_times_the_one_of_another_operation():
  rng = random.Random(2)
  wrong = {
    word for verb in set(OPEN.domain.operations) - {OPEN.verb} for word in OPEN.domain.operations[verb].announcements
  }
  shares = [not wrong.isdisjoint(respond(OPEN, HOPELESS, rng).split()) for _ in range(1000)]
  assert sum(shares) / 1000 == pytest.approx(CONFUSION, abs=0.058)  # four standard deviations


def test_an_item_is_omitted_at_times_also_by_experts():
  rng = random.Random(1)
  grades = [grade(OPEN, respond(OPEN, PERFECT, rng))["correctness"] for _ in range(1000)]
  assert grades.count(4) / 1000 == pytest.approx(0.9, abs=0.038)  # four standard deviations


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_skill_in_a_dimension_pays_in_this_dimension(dimension):
  low, high = ({name: 0.4 for name in DIMENSIONS} | {dimension: level} for level in (0.1, 0.8))
  # without limits, where courtesies do not cost points elsewhere
  spec = WorldSpec(conflict=0.0)
  worse, better = mean_grades(Skill(**low), spec), mean_grades(Skill(**high), spec)
  assert better[dimension] > worse[dimension] + 1
  for other in set(DIMENSIONS) - {dimension}:
    assert better[other] == pytest.approx(worse[other], abs=0.25)


def test_under_a_limit_following_it_costs_helpfulness():
  spec = WorldSpec(conflict=1.0)
  careless, careful = mean_grades(Skill(0.8, 0.8, 0.0), spec), mean_grades(Skill(0.8, 0.8, 1.0), spec)
  assert careful["instruction_following"] > careless["instruction_following"] + 1
  assert careful["helpfulness"] < careless["helpfulness"] - 0.5


def test_levels_are_drawn_for_each_dimension_on_its_own():
  rng = random.Random(0)
  skills = {draw_skill(rng) for _ in range(1000)}
  assert len(skills) == len(LEVELS) ** 3


@given(SEEDS)
def test_the_optimum_has_full_marks_unless_the_question_limits_the_words(seed):
  task = draw_task(DEFAULT_SPEC, random.Random(seed))
  grades = grade(task, optimum(task))
  if task.max_words is None:
    assert set(grades.values()) == {4}
  else:
    slack = task.max_words - len(task.items)
    assert grades == {"helpfulness": slack, "correctness": 4, "instruction_following": 4}


@given(SEEDS, st.integers(2, 6))
def test_no_responder_beats_the_optimum(seed, count):
  rng, dimensions = random.Random(seed), tuple(GRADERS)[:count]
  task = draw_task(DEFAULT_SPEC, rng)
  best = sum(grade(task, optimum(task, dimensions), dimensions).values())
  for response in (*(respond(task, draw_skill(rng), rng) for _ in range(20)), babble("text", rng)):
    assert sum(grade(task, response, dimensions).values()) <= best


@given(SEEDS)
def test_babble_draws_from_the_words_of_responses(seed):
  tokens = babble("text", random.Random(seed)).split()
  assert 1 <= len(tokens) <= 12
  assert set(tokens) <= set(RESPONSE_WORDS["text"])


@pytest.mark.parametrize("name", DOMAINS)
def test_every_word_of_a_response_is_listed_and_every_listed_one_occurs(name):
  rng = random.Random(3)
  said = set()
  for _ in range(4000):
    task = draw_task(WorldSpec(domain=name), rng)
    said.update(respond(task, draw_skill(rng), rng).split())
  rare = set(map(str, range(22, 40)))  # large totals
  assert said | rare == set(RESPONSE_WORDS[name]) | rare
  assert said > {*LAYOUTS.values(), *(operation.announcements[0] for operation in DOMAINS[name].operations.values())}
