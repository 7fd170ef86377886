"""What came out of a study, arm by arm: means over seeds, with intervals, and differences seed by seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from amopo_jax.lab.graders import DIMENSIONS, HIGH
from amopo_jax.lab.grading import MEAN, WANTED
from amopo_jax.lab.jobs import START
from amopo_jax.lab.measure import GREEDY, SAMPLED
from amopo_jax.lab.methods import OVERALL, TOLD
from amopo_jax.lab.pareto import front, hypervolume
from amopo_jax.lab.pool import Answer
from amopo_jax.lab.statistics import Interval, difference, interval
from amopo_jax.lab.studies import Arm, Study

BySeed = dict[int, float]
Rows = list[list[str]]
"""A table's cells, the head first."""


Read = Callable[[Answer], float]


def score(mode: str, column: str) -> Read:
  """Reads the true score in the context that asks for everything."""
  return lambda answer: answer["scores"][mode][OVERALL][column]


def own_score(study: Study, arm: Arm, dimension: str, asked: str = "") -> Read:
  """Reads the true score of a dimension, sampled, where a score was asked for in it; "": the highest.

  A method that is told all scores in one context is asked for the same in all.
  """
  is_told = arm.method != START and study.methods[arm.method].contexts == TOLD
  return _sampled(asked, OVERALL if is_told else dimension, dimension)


def by_seed(answers: Mapping[str, Answer], name: str, read: Read) -> BySeed:
  """Seed -> value, of the runs of an arm that are there."""
  found = {}
  for job, answer in answers.items():
    folder, _, arm = job.partition("/")
    if arm == name and folder.startswith("seed"):
      found[int(folder.removeprefix("seed"))] = float(read(answer))
  return found


def _columns(answers: Mapping[str, Answer]) -> list[str]:
  """Scores that every policy has."""
  found = [answer["scores"][GREEDY] for job, answer in answers.items() if job.startswith("seed")]
  is_asked = bool(found) and all(WANTED in scores for contexts in found for scores in contexts.values())
  return [*DIMENSIONS, MEAN, *((WANTED,) if is_asked else ())]


def start_name(arm: Arm) -> str:
  """Folder of the start of an arm."""
  return Arm(START, arm.ground.origin).name


def score_rows(study: Study, answers: Mapping[str, Answer], mode: str) -> Rows:
  """True scores per dimension of every start and arm."""
  columns = _columns(answers)
  rows = [["", *columns]]
  for arm in with_starts(study):
    cells = [_over_seeds(by_seed(answers, arm.name, score(mode, column))) for column in columns]
    rows.append([label(study, arm), *cells])
  return rows


def own_rows(study: Study, answers: Mapping[str, Answer]) -> Rows:
  """`own_score` of every start and arm, and the mean over dimensions."""
  rows = [["", *DIMENSIONS, MEAN]]
  for arm in with_starts(study):
    reads = [own_score(study, arm, dimension) for dimension in DIMENSIONS]
    together: Read = lambda answer, reads=reads: _mean(read(answer) for read in reads)
    cells = [_over_seeds(by_seed(answers, arm.name, read)) for read in (*reads, together)]
    rows.append([label(study, arm), *cells])
  return rows


def change_rows(study: Study, answers: Mapping[str, Answer], mode: str) -> Rows:
  """Scores against the start of the same seed, seeds in which every dimension rose, share of responses that won."""
  columns = _columns(answers)
  rows = [["against the start", *columns, "all rise in", "wins"]]
  for arm in study.arms:
    gains = [_signed(_gain(answers, arm, start_name(arm), score(mode, column))) for column in columns]
    wins = _over_seeds(by_seed(answers, arm.name, lambda answer: answer["wins"][mode][OVERALL]))
    rows.append([label(study, arm), *gains, _all_rise(answers, arm, mode), wins])
  return rows


def first_rows(study: Study, answers: Mapping[str, Answer], mode: str) -> Rows:
  """Scores of every arm minus those of the first arm's method on its ground, with a verdict on the mean."""
  columns, method = _columns(answers), study.arms[0].method
  rows = [[f"minus {study.methods[method].label}", *columns, "verdict"]]
  firsts = {arm.ground.name: arm for arm in study.arms if arm.method == method}
  for arm in study.arms:
    first = firsts.get(arm.ground.name)
    if first is None or arm is first:
      continue
    gains = [_gain(answers, arm, first.name, score(mode, column)) for column in columns]
    rows.append([label(study, arm), *map(_signed, gains), _verdict(gains[columns.index(MEAN)])])
  return rows


def cost_rows(study: Study, answers: Mapping[str, Answer]) -> Rows:
  """Accuracy of held-out pairs, length and end of responses, hypervolume over contexts, compute."""
  head = ["", "pair accuracy", "tokens", "ended", "hypervolume", "pairs", "sequences", "seconds"]
  told: Callable[[str], Read] = lambda name: lambda answer: answer.get(name, float("nan"))
  reads: list[Read] = [
    lambda answer: _mean(value for value in answer.get("accuracy", {}).values() if value is not None),
    told("tokens_per_response"),
    told("ended"),
    lambda answer: volume(study, answer),
    told("pairs"),
    told("sequences"),
    told("seconds"),
  ]
  rows = [head]
  for arm in with_starts(study):
    cells = [_over_seeds(by_seed(answers, arm.name, read)) for read in reads]
    rows.append([label(study, arm), *cells])
  return rows


def volume(study: Study, answer: Answer) -> float:
  """Share of the scores' cube that all sampled scores dominate together; NaN where other scores were not asked for."""
  if study.scores and not answer["asked"]:
    return float("nan")
  contexts = [answer["scores"][SAMPLED], *answer["asked"].values()]
  points = [[scores[dimension] for dimension in DIMENSIONS] for of in contexts for scores in of.values()]
  return hypervolume(np.asarray(points, np.float64), [0.0] * len(DIMENSIONS)) / 4.0 ** len(DIMENSIONS)


def front_rows(study: Study, answers: Mapping[str, Answer]) -> Rows:
  """The sampled scores, means over seeds, that no policy or question on the same ground beats in all dimensions."""
  grounds: dict[str, dict[tuple[str, str, str], list[Interval]]] = {arm.ground.name: {} for arm in study.arms}
  for arm, asked, context in _questions(study, answers):
    reads = [_sampled(asked, context, dimension) for dimension in DIMENSIONS]
    values = [[value for value in by_seed(answers, arm.name, read).values() if not np.isnan(value)] for read in reads]
    if all(values):
      for name in _grounds_of(study, arm):
        grounds[name][label(study, arm), context, asked or f"{HIGH:g}"] = [interval(of) for of in values]
  best = {key: found[key] for found in grounds.values() for key in _undominated(found)}
  return [["", "asked for", "score", *DIMENSIONS], *([*key, *map(str, scores)] for key, scores in best.items())]


def _grounds_of(study: Study, arm: Arm) -> list[str]:
  """On which an arm stands: a start on those of all arms that it is the start of."""
  if arm.method != START:
    return [arm.ground.name]
  return list(dict.fromkeys(other.ground.name for other in study.arms if other.ground.origin.name == arm.ground.name))


def _undominated(found: Mapping[tuple[str, str, str], Sequence[Interval]]) -> list[tuple[str, str, str]]:
  points = np.array([[one.mean for one in of] for of in found.values()], np.float64).reshape(-1, len(DIMENSIONS))
  return [key for key, is_best in zip(found, front(points), strict=True) if is_best]


def _questions(study: Study, answers: Mapping[str, Answer]) -> Iterator[tuple[Arm, str, str]]:
  """(arm, score, context) that was asked for; "" is the highest score."""
  for arm in with_starts(study):
    questions: dict[tuple[str, str], None] = {}
    for job, answer in answers.items():
      if job.startswith("seed") and job.partition("/")[2] == arm.name:
        asked = {"": answer["scores"][SAMPLED], **answer["asked"]}
        questions |= dict.fromkeys((score, context) for score, contexts in asked.items() for context in contexts)
    yield from ((arm, score, context) for score, context in questions)


def _sampled(asked: str, context: str, dimension: str) -> Read:
  def read(answer: Answer) -> float:
    contexts = answer["asked"].get(asked, {}) if asked else answer["scores"][SAMPLED]
    return contexts.get(context, {}).get(dimension, float("nan"))

  return read


def asked_rows(study: Study, answers: Mapping[str, Answer]) -> Rows:
  """Sampled score in a dimension against the one that its context asks for; the slope is 1 where asking is getting."""
  values = (*study.scores, float(HIGH))
  rows = [["", "dimension", *(f"asked {value:g}" for value in values), "slope"]]
  for arm in with_starts(study):
    for dimension in DIMENSIONS:
      reads = [own_score(study, arm, dimension, asked) for asked in (*(f"{value:g}" for value in study.scores), "")]
      slope: Read = lambda answer, reads=reads: _slope(values, [read(answer) for read in reads])
      cells = (_over_seeds(by_seed(answers, arm.name, read)) for read in (*reads, slope))
      rows.append([label(study, arm), dimension, *cells])
  return rows


def with_starts(study: Study) -> list[Arm]:
  """The starts, then the arms."""
  origins = {arm.ground.origin.name: arm.ground.origin for arm in study.arms}
  return [*(Arm(START, origin) for origin in origins.values()), *study.arms]


def label(study: Study, arm: Arm) -> str:
  """Of a row."""
  name = "the start" if arm.method == START else study.methods[arm.method].label
  return name if arm.ground.name == "default" else f"{name} ({arm.ground.name})"


def _gain(answers: Mapping[str, Answer], arm: Arm, other: str, read: Read) -> Interval | None:
  return difference(by_seed(answers, arm.name, read), by_seed(answers, other, read))


def _all_rise(answers: Mapping[str, Answer], arm: Arm, mode: str) -> str:
  gains = []
  for dimension in DIMENSIONS:
    read = score(mode, dimension)
    ours, before = by_seed(answers, arm.name, read), by_seed(answers, start_name(arm), read)
    gains.append({seed: ours[seed] > before[seed] for seed in ours.keys() & before.keys()})
  seeds = gains[0].keys()
  return f"{sum(all(gain[seed] for gain in gains) for seed in seeds)} of {len(seeds)}"


def _verdict(gain: Interval | None) -> str:
  if gain is None or np.isnan(gain.half):
    return "–"
  return "better" if gain.low > 0 else "worse" if gain.high < 0 else "no difference seen"


def _slope(asked: Sequence[float], given: Sequence[float]) -> float:
  """Of the line nearest to what was given for what was asked."""
  from_middle = np.asarray(asked) - np.mean(asked)
  return float(from_middle @ np.asarray(given) / (from_middle @ from_middle))


def _over_seeds(values: BySeed) -> str:
  known = [value for value in values.values() if not np.isnan(value)]
  return str(interval(known)) if known else "–"


def _signed(gain: Interval | None) -> str:
  return (
    "–"
    if gain is None
    else f"{'+' if gain.mean >= 0 else '−'}{abs(gain.mean):.2f}"
    + ("" if np.isnan(gain.half) else f" ± {gain.half:.2f}")
  )


def _mean(values: Any) -> float:
  listed: Sequence[float] = list(values)
  return sum(listed) / len(listed) if listed else float("nan")
