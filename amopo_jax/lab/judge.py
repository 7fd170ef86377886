"""A judge in the graders' place: a command that scores responses to questions whose answers no program knows.

    JUDGE responses.jsonl scores.jsonl

It reads the lines of `amopo generate` (prompt, response, context, …) and writes as many, each {"scores": {dimension:
number from 0 to 4}}, in their order. What it may use, another model or people, is its own affair.
"""

import json
import math
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amopo_jax.lab.graders import DIMENSIONS, HIGH, LOW
from amopo_jax.types import InputError, RunFailure

JUDGED = ".scores.jsonl"
"""Ends the name of the file with a judge's scores, beside the responses."""


def judge_lines(path: Path, judge: str) -> None:
  """Has the responses of a file judged; nothing is done where they are already.

  Args:
    path: written by `amopo generate`.
    judge: a command with its arguments, as a shell would split it.

  Raises:
    RunFailure: it fails, or writes something else than scores.
  """
  found = path.with_suffix(JUDGED)
  if found.exists():
    return
  fresh = found.with_name(f"{found.name}.new")
  fresh.unlink(missing_ok=True)  # of one that was killed
  command = [*shlex.split(judge), str(path), str(fresh)]
  try:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
  except OSError as error:
    raise RunFailure(f"--judge={judge}: cannot be run ({error}); give a command with its arguments") from error
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    raise RunFailure(f"--judge={judge}: ended with status {done.returncode} on {path} ({last})")
  if not fresh.exists():
    raise RunFailure(f"--judge={judge}: wrote no {fresh}; it has to write the file of its last argument")
  _read_scores(fresh, judge, len(path.read_text().splitlines()))
  fresh.replace(found)


def read_judged(path: Path, judge: str) -> list[dict[str, Any]]:
  """The responses of a file that was judged, with a score per dimension in each.

  Args:
    path, judge: of `judge_lines`.
  """
  lines = [json.loads(text) for text in path.read_text().splitlines()]
  scores = _read_scores(path.with_suffix(JUDGED), judge, len(lines))
  return [{**line, **of} for line, of in zip(lines, scores, strict=True)]


def _read_scores(path: Path, judge: str, count: int) -> list[dict[str, float]]:
  texts = [text for text in path.read_text().split("\n") if text.strip()]
  if len(texts) != count:
    raise RunFailure(f"--judge={judge}: wrote {len(texts)} lines for {count} responses; write one for each")
  return [_scores_of(text, f"--judge={judge}: {path.name}:{number}") for number, text in enumerate(texts, start=1)]


def _scores_of(text: str, where: str) -> dict[str, float]:
  try:
    scores: Mapping[str, Any] = json.loads(text)["scores"]
    found = {dimension: float(scores[dimension]) for dimension in DIMENSIONS}
  except (ValueError, KeyError, TypeError) as error:
    raise RunFailure(f"{where}: no scores in {', '.join(DIMENSIONS)} ({type(error).__name__}: {error})") from error
  for dimension, score in found.items():
    if not (math.isfinite(score) and LOW <= score <= HIGH):
      raise RunFailure(f"{where}: {dimension} {score:g} is not from {LOW} to {HIGH}")
  return found


def check_judge(judge: str) -> None:
  """Refuses what cannot be a command.

  Raises:
    InputError: it is none.
  """
  try:
    words: Sequence[str] = shlex.split(judge)
  except ValueError as error:
    raise InputError(f"--judge={judge}: {error}; quote it as in a shell") from error
  if not words:
    raise InputError("--judge: is empty; give a command that scores responses")
