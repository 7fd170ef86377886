"""What a report's tables and figures are made of, as files: scores, runs and curves, run by run or step by step."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amopo_jax.lab.figures import Curves
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.grading import WANTED
from amopo_jax.lab.measure import SAMPLED
from amopo_jax.lab.pool import Answer
from amopo_jax.lab.studies import Study
from amopo_jax.lab.tables import volume
from amopo_jax.writers import read_metrics

CURVES = ("rewards/margins/", "alpha/", "rewards/accuracies/", "logps/chosen")

_COSTS = ("tokens_per_response", "ended", "pairs", "sequences", "seconds")


def read_curves(study: Study, answers: Mapping[str, Answer], folder: Path) -> Curves:
  """Means over seeds of what the runs logged."""
  return {arm.name: _means_by_step(_logged(arm.name, answers, folder)) for arm in study.arms}


def _logged(arm: str, answers: Mapping[str, Answer], folder: Path) -> Iterator[tuple[str, int, float]]:
  """(metric, step, value) of an arm's runs."""
  for job in answers:
    if job.startswith("seed") and job.partition("/")[2] == arm:
      for line in read_metrics(str(folder / job / "run")):
        shown = ((key, value) for key, value in line.items() if key.startswith(CURVES) and value is not None)
        yield from ((key, line["step"], value) for key, value in shown)


def _means_by_step(points: Iterable[tuple[str, int, float]]) -> dict[str, list[tuple[int, float]]]:
  values: dict[str, dict[int, list[float]]] = {}
  for key, step, value in points:
    values.setdefault(key, {}).setdefault(step, []).append(value)
  return {key: [(step, float(np.mean(of))) for step, of in sorted(steps.items())] for key, steps in values.items()}


def write_scores(answers: Mapping[str, Answer], path: Path) -> None:
  """True scores of every run, per context and dimension."""
  rows: list[Sequence[Any]] = [("seed", "arm", "mode", "asked", "context", "dimension", "score")]
  for job, answer in answers.items():
    if not job.startswith("seed"):
      continue
    seed, _, arm = job.removeprefix("seed").partition("/")
    told = [(mode, "highest", contexts) for mode, contexts in answer["scores"].items()]
    told += [(SAMPLED, asked, contexts) for asked, contexts in answer["asked"].items()]
    rows += [
      (seed, arm, mode, asked, context, dimension, scores[dimension])
      for mode, asked, contexts in told
      for context, scores in contexts.items()
      for dimension in (*DIMENSIONS, WANTED)
      if dimension in scores
    ]
  _write_csv(path, rows)


def write_runs(study: Study, answers: Mapping[str, Answer], path: Path) -> None:
  """Of every run: accuracy of pairs and wins against the start per context, hypervolume, responses, compute."""
  rows: list[Sequence[Any]] = [("seed", "arm", "measure", "value")]
  for job, answer in answers.items():
    if job.startswith("seed"):
      seed, _, arm = job.removeprefix("seed").partition("/")
      found = {f"accuracy/{context}": value for context, value in answer.get("accuracy", {}).items()}
      wins = answer.get("wins", {})
      found |= {f"wins/{mode}/{context}": value for mode, of in wins.items() for context, value in of.items()}
      found |= {"hypervolume": volume(study, answer)} | {name: answer.get(name) for name in _COSTS}
      known = {name: value for name, value in found.items() if value is not None and not np.isnan(value)}
      rows += [(seed, arm, name, value) for name, value in known.items()]
  _write_csv(path, rows)


def write_curves(curves: Curves, path: Path) -> None:
  """What `read_curves` found, at every step."""
  rows: list[Sequence[Any]] = [("arm", "metric", "step", "mean over seeds")]
  rows += [
    (arm, key, step, f"{value:.5g}")
    for arm, metrics in curves.items()
    for key, points in metrics.items()
    for step, value in points
  ]
  _write_csv(path, rows)


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
  with path.open("w", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows(rows)
