"""True scores of generated responses: what the graders say of the lines of `amopo generate`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amopo_jax.lab.graders import DIMENSIONS, grade
from amopo_jax.lab.responders import optimum
from amopo_jax.lab.tasks import parse
from amopo_jax.types import InputError

Scores = dict[str, dict[str, float]]
"""Context -> dimension -> mean grade, 0 to 4, with MEAN and WANTED."""

MEAN, WANTED = "mean", "wanted"
"""Beside the dimensions' names: the mean over them, and in dialogues the grade in the one that the turn wants."""


def read_scores(path: str | Path, dimensions: Sequence[str] = DIMENSIONS) -> Scores:
  """Mean grades of the responses of a file; see `read_lines` and `mean_scores`."""
  return mean_scores(read_lines(path, dimensions), dimensions)


def read_lines(path: str | Path, dimensions: Sequence[str] = DIMENSIONS) -> list[dict[str, Any]]:
  """Grades the responses of a file.

  Args:
    path: written by `amopo generate` for questions of the world.
    dimensions: of `graders.GRADERS`.

  Returns:
    The lines in their order, with a grade per dimension in each.

  Raises:
    InputError: no such file, no lines, or a line that is no response to a question of the world.
  """
  file = Path(path)
  if not file.is_file():
    raise InputError(f"{path}: no such file; write it with amopo generate")
  lines = []
  for number, text in enumerate(file.read_text().splitlines(), start=1):
    try:
      line = json.loads(text)
      question, response, context = line["prompt"][-1]["content"], line["response"], line["context"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
      raise InputError(f"{path}:{number}: not a line of amopo generate ({error}); give a file that it wrote") from error
    try:
      task = parse(question)
      wanted = {WANTED: grade(task, response, [task.wanted])[task.wanted]} if task.wanted else {}
      lines.append({**line, "context": context, **grade(task, response, dimensions), **wanted})
    except InputError as error:
      raise InputError(f"{path}:{number}: {error}") from None
  if not lines:
    raise InputError(f"{path}: no responses; is the file empty?")
  return lines


def win_rate(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Share of responses, ours to the same question having the higher sum of grades; equal ones count half.

  Args:
    ours, theirs: of `read_lines`; draws are compared number by number, and only what both have.

  Returns:
    By context.
  """
  total = lambda line: sum(line[dimension] for dimension in DIMENSIONS)
  place = lambda line: (line["record"], line["context"], line["sample"])
  other = {place(line): total(line) for line in theirs}
  wins: dict[str, list[float]] = {}
  for line in ours:
    if (key := place(line)) in other:
      ahead = total(line) - other[key]
      wins.setdefault(line["context"], []).append(float(ahead > 0) + 0.5 * (ahead == 0))
  return {context: _mean(found) for context, found in wins.items()}


def pair_accuracy(scored: str | Path, records: str | Path, contexts: Mapping[str, str]) -> dict[str, float | None]:
  """Share of pairs whose chosen response is the likelier one per token, of those that a context's dimension orders so.

  Args:
    scored: written by `amopo score` for the records.
    records: in the native format, each with two responses.
    contexts: name -> dimension; "": all pairs count.

  Returns:
    By context; None where its dimension orders no pair as the annotator does.
  """
  pairs = [json.loads(line) for line in Path(records).read_text().split("\n") if line.strip()]
  found: dict[str, list[float]] = {name: [] for name in contexts}
  both: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
  for line in map(json.loads, Path(scored).read_text().splitlines()):
    both.setdefault((line["record"], line["context"]), {})[line["response"]] = line
  for (record, context), lines in both.items():
    of_two = [lines[name] for name in ("chosen", "rejected")]
    responses, dimension = pairs[record]["responses"], contexts[context]
    chosen, rejected = (float(responses[line["index"]]["scores"].get(dimension, 0)) for line in of_two)
    if not dimension or chosen > rejected:
      chosen, rejected = (line["sum_logp"] / line["length"] for line in of_two)
      found[context].append(float(chosen > rejected))
  return {context: _mean(shares) if shares else None for context, shares in found.items()}


def mean_scores(lines: Sequence[Mapping[str, Any]], dimensions: Sequence[str] = DIMENSIONS) -> Scores:
  """Means by context.

  Args:
    lines: each with its `context` and a grade per dimension.
    dimensions: their names.
  """
  found: Scores = {}
  for context in dict.fromkeys(line["context"] for line in lines):
    mine = [line for line in lines if line["context"] == context]
    means = {dimension: _mean(line[dimension] for line in mine) for dimension in dimensions}
    found[context] = means | {MEAN: _mean(means.values())}
    if all(WANTED in line for line in mine):
      found[context][WANTED] = _mean(line[WANTED] for line in mine)
  return found


def best_scores(path: str | Path, dimensions: Sequence[str] = DIMENSIONS) -> dict[str, float]:
  """What the responses with the highest sum of grades in some dimensions score, on the questions of a file."""
  lines = map(json.loads, Path(path).read_text().splitlines())
  tasks = dict.fromkeys(parse(line["prompt"][-1]["content"]) for line in lines)
  grades = [grade(task, optimum(task, dimensions), dimensions) for task in tasks]
  means = {dimension: _mean(one[dimension] for one in grades) for dimension in dimensions}
  return means | {MEAN: _mean(means.values())}


def table_rows(files: Sequence[Scores], best: Mapping[str, float]) -> list[list[str]]:
  """Rows of a table: a head, a row per context of the last file, the optimum; several files are joined by arrows.

  Args:
    files: one or more, such as before and after training.
    best: of `best_scores`.
  """
  columns = list(best)
  rows = [["asked for", *columns]]
  for context in files[-1]:
    cell = lambda column, context=context: " → ".join(_show(scores, context, column) for scores in files)
    rows.append([context, *map(cell, columns)])
  return [*rows, ["optimum", *(f"{best[column]:.2f}" for column in columns)]]


def _show(scores: Scores, context: str, column: str) -> str:
  return f"{scores[context][column]:.2f}" if context in scores else "–"


def _mean(values: Iterable[float]) -> float:
  listed = list(values)
  return sum(listed) / len(listed)
