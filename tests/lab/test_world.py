"""Records: seeded, true to their graders, and as difficult as stated."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.pairs import RULES
from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import DIMENSIONS, dimensions_of, grade
from amopo_jax.lab.responders import optimum
from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.lab.tasks import parse
from amopo_jax.lab.world import (
  KINDS,
  SPLITS,
  draw_task,
  kind_of,
  make_record,
  make_records,
  split_of,
)

COUNT = 500


@pytest.fixture(scope="module")
def records():
  return list(make_records(DEFAULT_SPEC, 0, "train", COUNT))


def test_the_default_world_is_the_one_that_was_published():
  """By the digest of its first records at commit 9fc1ab1: whoever measured on them can go on."""
  text = "".join(json.dumps(record) + "\n" for record in make_records(DEFAULT_SPEC, 0, "train", 800))
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == "897aabf33be3cf47"


def scores(record):
  chosen = record["chosen"]
  return record["responses"][chosen]["scores"], record["responses"][1 - chosen]["scores"]


def task_of(record):
  return parse(record["prompt"][0]["content"])


def sample(seed: int) -> list:
  return [make_record(DEFAULT_SPEC, seed, split, number) for split in SPLITS for number in range(10)]


SAMPLE_SCRIPT = """
import json
from amopo_jax.lab.spec import DEFAULT_SPEC
from amopo_jax.lab.world import SPLITS, make_record
print(json.dumps([make_record(DEFAULT_SPEC, 5, split, number) for split in SPLITS for number in range(10)]))
"""


@pytest.mark.parametrize("salt", ["1", "2"])
def test_a_seed_gives_the_same_records_in_any_process(salt):
  command = [sys.executable, "-c", SAMPLE_SCRIPT]
  printed = subprocess.run(
    command, env=os.environ | {"PYTHONHASHSEED": salt}, check=True, stdout=subprocess.PIPE
  ).stdout
  assert json.loads(printed) == sample(5)


def test_another_seed_gives_other_records():
  first, second = sample(0), sample(1)
  assert all(one != other for one, other in zip(first, second, strict=True))


def test_more_records_leave_the_first_ones_as_they_were(records):
  assert list(make_records(DEFAULT_SPEC, 0, "train", 10)) == records[:10]


def test_training_and_heldout_records_share_no_question(records):
  heldout = list(make_records(DEFAULT_SPEC, 0, "heldout", 60))
  assert {split_of(task_of(record)) for record in records} == {"train"}
  assert {split_of(task_of(record)) for record in heldout} == {"heldout"}
  assert {task_of(record) for record in heldout}.isdisjoint({task_of(record) for record in records})


def test_one_question_in_eight_is_held_out():
  rng = random.Random(0)
  tasks = [draw_task(DEFAULT_SPEC, rng) for _ in range(4000)]
  share = sum(split_of(task) == "heldout" for task in tasks) / len(tasks)
  assert share == pytest.approx(1 / 8, abs=0.02)  # four standard deviations


def test_scores_are_the_graders(records):
  for record in records:
    for response in record["responses"]:
      assert response["scores"] == grade(task_of(record), response["content"])


def test_the_chosen_response_has_the_higher_sum_at_either_place(records):
  for record in records:
    chosen, rejected = scores(record)
    assert sum(chosen.values()) > sum(rejected.values())
  assert 0.4 < sum(record["chosen"] for record in records) / COUNT < 0.6


@pytest.mark.parametrize("spec", [DEFAULT_SPEC, WorldSpec(tied=0.1, inverted=0.6, conflict=0.8)])
def test_ties_inversions_and_conflicts_have_their_shares(spec):
  made = list(make_records(spec, 1, "train", COUNT))
  kinds = [kind_of(*scores(record)) for record in made]
  conflicts = sum(task_of(record).max_words is not None for record in made)
  # four standard deviations of a share among 500 are at most 0.09
  assert kinds.count("tied") / COUNT == pytest.approx(spec.tied, abs=0.09)
  assert kinds.count("inverted") / COUNT == pytest.approx(spec.inverted, abs=0.09)
  assert conflicts / COUNT == pytest.approx(spec.conflict, abs=0.09)


@pytest.mark.parametrize(
  "spec, kinds",
  [
    (WorldSpec(tied=0.0, inverted=0.0), {"clear"}),
    (WorldSpec(tied=1.0, inverted=0.0), {"tied"}),
    (WorldSpec(tied=0.0, inverted=1.0), {"inverted"}),
  ],
)
def test_a_world_of_one_kind(spec, kinds):
  assert {kind_of(*scores(record)) for record in make_records(spec, 0, "train", 50)} == kinds


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_is_ordered_mostly_and_tied_and_inverted_at_times(records, dimension):
  gaps = [chosen[dimension] - rejected[dimension] for chosen, rejected in map(scores, records)]
  assert sum(gap > 0 for gap in gaps) > 0.6 * COUNT
  assert sum(gap == 0 for gap in gaps) > 0.05 * COUNT
  assert sum(gap < 0 for gap in gaps) > 0.03 * COUNT


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_grade_occurs(records, dimension):
  grades = {response["scores"][dimension] for record in records for response in record["responses"]}
  assert grades == {0, 1, 2, 3, 4}


def test_conflicts_are_real(records):
  for record in records[:200]:
    task = task_of(record)
    assert (sum(grade(task, optimum(task)).values()) < 12) == (task.max_words is not None)


def test_no_demonstration_gives_the_order_away_by_its_length(records):
  chosen_is_longer = [
    len(record["responses"][record["chosen"]]["content"].split())
    > len(record["responses"][1 - record["chosen"]]["content"].split())
    for record in records
  ]
  assert 0.3 < sum(chosen_is_longer) / COUNT < 0.75


def test_texts_are_short(records):
  assert max(len(record["prompt"][0]["content"].split()) for record in records) <= 16
  assert max(len(response["content"].split()) for record in records for response in record["responses"]) <= 14


def test_the_native_adapter_and_the_rules_agree_with_the_choice(records):
  ranges = {dimension: (0, 4) for dimension in DIMENSIONS}
  for record in records[:100]:
    read = ADAPTERS["native"].parse([json.loads(json.dumps(record))], "train.jsonl:1")
    for rule in ("annotated", "mean_score"):
      (pair,) = RULES[rule](read, ranges)
      assert pair.chosen.content == record["responses"][record["chosen"]]["content"]


@pytest.mark.parametrize(
  "chosen, rejected, kind",
  [((4, 3, 2), (3, 2, 1), "clear"), ((4, 2, 2), (3, 2, 1), "tied"), ((4, 2, 1), (2, 2, 2), "inverted")],
)
def test_kinds_by_hand(chosen, rejected, kind):
  assert kind_of(dict(zip(DIMENSIONS, chosen, strict=True)), dict(zip(DIMENSIONS, rejected, strict=True))) == kind


@given(st.integers(0, 2**32), st.sampled_from([(2, 2), (3, 4), (2, 6)]), st.sampled_from([(0, 0), (1, 3)]))
def test_a_question_keeps_to_its_spec(seed, num_items, slack):
  task = draw_task(WorldSpec(num_items=num_items, slack=slack, conflict=0.5), random.Random(seed))
  assert num_items[0] <= len(task.items) <= num_items[1]
  assert (task.closing is None) != (task.max_words is None)
  if task.max_words is not None:
    assert slack[0] <= task.max_words - len(task.items) <= slack[1]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("count", [2, 6])
def test_every_domain_has_pairs_in_any_number_of_dimensions(domain, count):
  spec = WorldSpec(domain=domain, dimensions=count)
  kinds = set()
  for record in make_records(spec, 0, "train", 40 if count == 2 else 20):
    chosen, rejected = scores(record)
    assert tuple(chosen) == dimensions_of(spec)
    assert len(chosen) == count
    assert sum(chosen.values()) > sum(rejected.values())
    assert parse(record["prompt"][0]["content"]).domain is DOMAINS[domain]
    kinds.add(kind_of(chosen, rejected))
  assert kinds >= {"tied", "inverted"}
  assert count == 6 or kinds == set(KINDS)


def test_helpfulness_and_brevity_pull_against_each_other():
  spec = WorldSpec(dimensions=4, conflict=0.0, tied=0.5, inverted=0.5)
  responses = [one for record in make_records(spec, 0, "train", 100) for one in record["responses"]]
  pairs = np.array([(one["scores"]["helpfulness"], one["scores"]["brevity"]) for one in responses])
  assert np.corrcoef(pairs.T)[0, 1] < -0.5


def test_in_a_dialogue_each_turn_wants_another_dimension_than_the_one_before():
  spec = WorldSpec(turns=3)
  for record in make_records(spec, 0, "train", 40):
    assert [message["role"] for message in record["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    asked = [parse(message["content"]).wanted for message in record["prompt"] if message["role"] == "user"]
    assert all(one != other for one, other in itertools.pairwise(asked))
    assert record["wanted"] == {asked[-1]: 1}


@pytest.mark.parametrize("split", SPLITS)
def test_no_turn_of_a_dialogue_has_a_question_of_the_other_split(split):
  for record in make_records(WorldSpec(turns=3), 0, split, 60):
    questions = [message["content"] for message in record["prompt"] if message["role"] == "user"]
    assert {split_of(parse(question)) for question in questions} == {split}


def test_what_a_turn_wants_decides_the_choice_more_often():
  records = list(make_records(WorldSpec(turns=2), 0, "train", 300))
  gaps = {True: [], False: []}
  for record in records:
    chosen, rejected = scores(record)
    for name in DIMENSIONS:
      gaps[name in record["wanted"]].append(chosen[name] - rejected[name])
  assert np.mean(gaps[True]) > np.mean(gaps[False]) + 0.3


def test_a_single_question_wants_nothing():
  record = make_record(WorldSpec(), 0, "train", 0)
  assert "wanted" not in record
  assert len(record["prompt"]) == 1


def test_noise_is_in_training_scores_alone_and_the_choice_follows_them(records):
  noisy = list(make_records(WorldSpec(noise=0.3), 0, "train", COUNT))
  texts = lambda found: [{one["content"] for one in record["responses"]} for record in found]
  assert texts(noisy) == texts(records)
  recorded = lambda record: [sum(one["scores"].values()) for one in record["responses"]]
  assert all(recorded(record)[record["chosen"]] == max(recorded(record)) for record in noisy)
  best = lambda record: record["responses"][record["chosen"]]["content"]
  turned = np.mean([best(one) != best(other) for one, other in zip(noisy, records, strict=True)])
  assert 0.05 < turned < 0.4
  clean, asked = (list(make_records(spec, 0, "heldout", 50)) for spec in (DEFAULT_SPEC, WorldSpec(noise=0.3)))
  assert clean == asked
