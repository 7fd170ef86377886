"""What a world's records contain, and between which scores a policy will end up: chance and optimum."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.graders import grade
from amopo_jax.lab.responders import babble, optimum
from amopo_jax.lab.tasks import parse
from amopo_jax.lab.world import KINDS, kind_of

Record = Mapping[str, Any]


def summarise(records: Sequence[Record]) -> dict[str, Any]:
  """Counts and mean scores of a split.

  Args:
    records: at least one, as `make_record` writes them.

  Returns:
    records, questions: how many, and how many different.
    kinds: how many records are tied, inverted, clear (see `WorldSpec`).
    conflicts: how many questions limit the number of words.
    dimensions: dimension -> how many pairs it has ordered, tied, inverted; mean score of the chosen and of the
      rejected response.
    chance, optimum: dimension -> mean score, on these questions, of words drawn by chance and of the response
      with the highest sum of scores.
  """
  tasks = [parse(record["prompt"][-1]["content"]) for record in records]
  pairs = [_scores(record) for record in records]
  kinds = [kind_of(*pair) for pair in pairs]
  dimensions = tuple(pairs[0][0])
  rng = random.Random("chance")
  domain = next(name for name, one in DOMAINS.items() if one is tasks[0].domain)
  return {
    "records": len(records),
    "questions": len(set(tasks)),
    "kinds": {kind: kinds.count(kind) for kind in KINDS},
    "conflicts": sum(task.max_words is not None for task in tasks),
    "dimensions": {dimension: _dimension(pairs, dimension) for dimension in dimensions},
    "chance": _means([grade(task, babble(domain, rng), dimensions) for task in tasks]),
    "optimum": _means([grade(task, optimum(task, dimensions), dimensions) for task in tasks]),
  }


def _scores(record: Record) -> tuple[dict[str, int], dict[str, int]]:
  """Scores of the chosen and of the rejected response."""
  chosen = record["chosen"]
  return record["responses"][chosen]["scores"], record["responses"][1 - chosen]["scores"]


def _dimension(pairs: Sequence[tuple[dict[str, int], dict[str, int]]], dimension: str) -> dict[str, int | float]:
  gaps = [chosen[dimension] - rejected[dimension] for chosen, rejected in pairs]
  return {
    "ordered": sum(gap > 0 for gap in gaps),
    "tied": sum(gap == 0 for gap in gaps),
    "inverted": sum(gap < 0 for gap in gaps),
    "mean_chosen": _mean([chosen[dimension] for chosen, _ in pairs]),
    "mean_rejected": _mean([rejected[dimension] for _, rejected in pairs]),
  }


def _means(grades: Sequence[Mapping[str, int]]) -> dict[str, float]:
  return {dimension: _mean([each[dimension] for each in grades]) for dimension in grades[0]}


def _mean(values: Sequence[int]) -> float:
  return round(sum(values) / len(values), 3)
