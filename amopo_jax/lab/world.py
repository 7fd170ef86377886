"""A small world with ground truth: seeded preference records whose scores are given by programs.

Every record is a function of (spec, seed, split, number): asking for more records leaves the first ones as
they were. Training and held-out records never share a question, nor one of an earlier turn.
"""

import dataclasses
import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import DIMENSIONS, HIGH, LOW, dimensions_of, grade
from amopo_jax.lab.responders import draw_skill, respond
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.tasks import CLOSINGS, LAYOUTS, Task

SPLITS = ("train", "heldout")

HELDOUT_PARTS = 8
"""One question in this many, by its checksum, is kept for the held-out records."""

KINDS = ("tied", "inverted", "clear")
"""What the dimensions make of a pair; see `WorldSpec`."""

WANTED = 4
"""How often the grade of the dimension that a turn wants counts in the choice."""

PATIENCE = 300
"""Pairs of responses that are drawn for a kind where there are dimensions that hardly ever agree, those on demand; then
any pair takes its place. Elsewhere pairs are drawn until there is one."""

GradedResponse = dict[str, Any]
"""{"content": text, "scores": {dimension: grade}}, as in the native record format."""


def kind_of(chosen: Mapping[str, int], rejected: Mapping[str, int]) -> str:
  """What the dimensions make of a pair.

  Args:
    chosen: dimension -> grade of the chosen response.
    rejected: the same of the rejected response.

  Returns:
    One of KINDS.
  """
  lowest_gap = min(chosen[dimension] - rejected[dimension] for dimension in chosen)
  return "inverted" if lowest_gap < 0 else "tied" if lowest_gap == 0 else "clear"


def draw_task(spec: WorldSpec, rng: random.Random) -> Task:
  """A question; its verb, words, layout and demand are drawn on their own."""
  domain = DOMAINS[spec.domain]
  items = tuple(rng.sample(domain.items, rng.randint(*spec.num_items)))
  limited = rng.random() < spec.conflict
  return Task(
    verb=rng.choice(tuple(domain.operations)),
    items=items,
    layout=rng.choice(tuple(LAYOUTS)),
    closing=None if limited else rng.choice(CLOSINGS),
    max_words=len(items) + rng.randint(*spec.slack) if limited else None,
  )


def make_record(spec: WorldSpec, seed: int, split: str, number: int) -> dict[str, Any]:
  """One record in the native format of docs/data.md.

  Two responders answer until their grades make a pair of the kind that was drawn. The response with the higher
  sum of recorded scores is the chosen one; sums are equal through noise alone, which then leaves the choice as it is.

  Args:
    spec: shares of the difficulties.
    seed: names the world.
    split: one of SPLITS.
    number: of the record in its split, from 0.

  Returns:
    {"prompt": [message, …], "responses": [response, response], "chosen": 0 or 1}, in a dialogue also "wanted".
  """
  rng = random.Random(f"{seed}/{split}/{number}")
  history, before = [], None
  for _ in range(spec.turns - 1):
    past = _wanting(_draw_task_of(split, spec, rng), spec, before, rng)
    history += [_message("user", past.question), _message("assistant", respond(past, draw_skill(rng), rng))]
    before = past.wanted
  task = _wanting(_draw_task_of(split, spec, rng), spec, before, rng)
  shares = (spec.tied, spec.inverted, 1 - spec.tied - spec.inverted)
  chosen, rejected = _draw_pair(spec, task, rng.choices(KINDS, shares)[0], rng)
  first = rng.randrange(2)
  if split == SPLITS[0]:  # who is held out is measured by the truth
    noise = random.Random(f"{seed}/{split}/{number}/noise")  # of its own: the texts are those of the world without it
    chosen, rejected = (_corrupt(response, spec.noise, noise) for response in (chosen, rejected))
    if _total(task, chosen) < _total(task, rejected):
      chosen, rejected = rejected, chosen
  record = {
    "prompt": [*history, _message("user", task.question)],
    "responses": [rejected, chosen] if first else [chosen, rejected],
    "chosen": first,
  }
  return record | ({"wanted": {task.wanted: 1}} if task.wanted else {})


def make_records(spec: WorldSpec, seed: int, split: str, count: int) -> Iterator[dict[str, Any]]:
  """The first `count` records of a split; see `make_record`."""
  return (make_record(spec, seed, split, number) for number in range(count))


def split_of(task: Task) -> str:
  """The only split in which this question may occur."""
  question = dataclasses.replace(task, wanted=None).question
  return "train" if zlib.crc32(question.encode()) % HELDOUT_PARTS else "heldout"


def _draw_task_of(split: str, spec: WorldSpec, rng: random.Random) -> Task:
  task = draw_task(spec, rng)
  while split_of(task) != split:
    task = draw_task(spec, rng)
  return task


def _draw_pair(spec: WorldSpec, task: Task, kind: str, rng: random.Random) -> tuple[GradedResponse, GradedResponse]:
  dimensions = dimensions_of(spec)
  patience = PATIENCE if set(dimensions) - set(DIMENSIONS) else math.inf
  attempt = 0
  while True:
    attempt += 1
    rejected, chosen = sorted((_draw_response(task, dimensions, rng) for _ in range(2)), key=partial(_total, task))
    fits = kind_of(chosen["scores"], rejected["scores"]) == kind or attempt > patience
    if _total(task, chosen) > _total(task, rejected) and fits:
      return chosen, rejected


def _draw_response(task: Task, dimensions: Sequence[str], rng: random.Random) -> GradedResponse:
  text = respond(task, draw_skill(rng), rng)
  return {"content": text, "scores": grade(task, text, dimensions)}


def _corrupt(response: GradedResponse, chance: float, rng: random.Random) -> GradedResponse:
  """Some of the scores replaced by any."""
  draws = {dimension: (rng.random(), rng.randint(LOW, HIGH)) for dimension in response["scores"]}
  scores = response["scores"]
  return response | {"scores": {name: draw if at < chance else scores[name] for name, (at, draw) in draws.items()}}


def _total(task: Task, response: GradedResponse) -> int:
  scores = response["scores"]
  return sum(scores.values()) + (WANTED - 1) * scores.get(task.wanted, 0)


def _wanting(task: Task, spec: WorldSpec, before: str | None, rng: random.Random) -> Task:
  """The task as the question of a dialogue, which wants another dimension than the one before; else unchanged."""
  if spec.turns == 1:
    return task
  return dataclasses.replace(task, wanted=rng.choice([name for name in dimensions_of(spec) if name != before]))


def _message(role: str, content: str) -> dict[str, str]:
  return {"role": role, "content": content}
